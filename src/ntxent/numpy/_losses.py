"""The public functions for NumPy: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from typing import Any

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE
from ntxent.numpy._operations.backend import OPS, native
from ntxent.numpy._pairs.tiled import Array


@named
def nt_xent(
    *views: Array,
    temperature: float | Array = TEMPERATURE,
    ids: Array | None = None,
    denominator: str = "all",
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
) -> Any:
    r"""NT-Xent, the contrastive loss of SimCLR, over two or more views of the same images.

    Each row must find the other views of its image among all rows of the batch. The n x n matrix
    of similarities is held by "dense" alone, or as one tile.

    Parameters
    ----------
    *views : ndarray, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32 or float16, all of one
        shape and dtype, contiguous or not, of any byte order. Rows may have any length: they are
        normalised inside, and a zero row has similarity 0 to everything and a zero gradient.
    temperature : float or ndarray of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. An array
        receives its gradient from `value_and_grad`.
    ids : ndarray of integers, shape (N,), optional
        Images with equal ids (the same caption, patient, product) are never negatives of each
        other. By default every image has its own.
    denominator : {"all", "one_positive", "negatives"}, default "all"
        What an anchor's positive is compared with: the negatives and all its positives (SupCon's
        eq. 2), the negatives and this one positive, or the negatives alone (decoupled). With two
        views the first two are the same, SimCLR's eq. 1.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "none" gives one value a row: the rows of the first view, then those of the second, ...
    implementation : {"dense", "tiled"}, optional
        "tiled" holds O(N d) and two tiles of at most 512 x 512 a thread; "dense" holds a few (V
        N)^2 matrices. By default "tiled".

    Returns
    -------
    numpy scalar, or ndarray of shape (V N,) for "none"
        In float64 for float64 views and in float32 for all others. NaN or infinity in a view makes
        the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't an ndarray (masked arrays aren't), for integer or complex dtypes,
        and for dtypes that differ.
    ValueError
        For fewer than two views, shapes that aren't (N, d) or differ, empty batches, a temperature
        that isn't positive and finite, an unknown choice, ids of the wrong shape, and
        `denominator="negatives"` for a batch without negatives.

    Notes
    -----
    With z the n = V N normalised rows, j(i) the partner of row i and N(i) the rows of other images,

    .. math:: \ell_i = -\log \frac{\exp(z_i \cdot z_{j(i)} / \tau)}
              {\exp(z_i \cdot z_{j(i)} / \tau) + \sum_{k \in N(i)} \exp(z_i \cdot z_k / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - z_i \cdot z_{j(i)} / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: forward and backward
    together at most 4 n^2 d flops for "tiled", 8 for "dense". For one image and two views the loss
    is exactly 0.

    `value_and_grad` gives the gradients.

    Two runs on one machine give the same bits.

    References
    ----------
    T. Chen et al., A simple framework for contrastive learning of visual representations,
    arXiv 2002.05709, eq. 1. P. Khosla et al., arXiv 2004.11362, eq. 2 (more than two views).
    C.-H. Yeh et al., arXiv 2110.06848 (decoupled).

    Examples
    --------
    >>> import numpy as np
    >>> from ntxent.numpy import nt_xent
    >>> z1 = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> z2 = np.array([[2.0, 0.0], [0.0, 3.0]])
    >>> round(float(nt_xent(z1, z2, temperature=0.5)), 6)
    0.239545
    """
    *arrays, temperature, ids = map(native, (*views, temperature, ids))
    return _formula.nt_xent(
        OPS, arrays, temperature, ids, denominator, normalize, reduction, implementation
    )


@named
def sup_con(
    z: Array,
    labels: Array,
    *,
    temperature: float | Array = TEMPERATURE,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
) -> Any:
    r"""SupCon, the supervised contrastive loss: rows with one label must find each other.

    Each row must find every other row of its label among all other rows. Views of an image are rows
    with its label: any number of them, one included. Neither the n x n matrix of similarities nor a
    mask of which labels are equal is held in memory beyond one tile.

    Parameters
    ----------
    z : ndarray, shape (n, d)
        One row an image, or several. float64, float32 or float16. Rows
        may have any length: they are normalised inside, and a zero row has similarity 0 to
        everything and a zero gradient.
    labels : ndarray of integers, shape (n,)
        Any integers, compared as integers.
    temperature : float or ndarray of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. An array
        receives its gradient from `value_and_grad`.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" is over the rows that have a positive: a row whose label no other row has is left out
        of it, but is a negative of the others. "none" gives one value a row, 0 for such a row. A
        batch of such rows alone, or of one row, has the loss 0 and zero gradients.
    implementation : {"dense", "tiled"}, optional
        "tiled" holds O(n d) and two tiles of at most 512 x 512 a thread; "dense" holds a few n^2
        matrices. By default "tiled".

    Returns
    -------
    numpy scalar, or ndarray, shape () or (n,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't a numpy.ndarray, for integer or complex rows, and for labels that
        aren't integers.
    ValueError
        For shapes that aren't (n, d) and (n,), empty batches, a temperature that isn't
        positive and finite, and an unknown choice.

    Warns
    -----
    RuntimeWarning
        For labels of which no two are equal.

    Notes
    -----
    With z the normalised rows and P(i) the other rows of row i's label,

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(z_i \cdot z_p / \tau)}
              {\sum_{k \ne i} \exp(z_i \cdot z_k / \tau)}

    where the positives enter through the sum of each class, O(n d), and a row with one positive
    alone has the loss of NT-Xent, however small. Time: forward and backward together at most 4 n^2
    d flops for "tiled", 8 for "dense". There is no `base_temperature`: docs/which-loss.md has the
    line for implementations that have one.

    Two runs on one machine give the same bits.

    References
    ----------
    P. Khosla et al., Supervised contrastive learning, arXiv 2004.11362, eq. 2.

    Examples
    --------
    >>> import numpy as np
    >>> from ntxent.numpy import sup_con
    >>> z = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> loss = sup_con(z, np.array([5, 5, 8, 8]), temperature=0.5)
    >>> round(float(loss), 6)
    0.239545
    """
    z, labels, temperature = map(native, (z, labels, temperature))
    return _formula.sup_con(OPS, z, labels, temperature, normalize, reduction, implementation)


@named
def info_nce(
    query: Array,
    key: Array,
    negatives: Array | None = None,
    *,
    temperature: float | Array = TEMPERATURE,
    ids: Array | None = None,
    symmetric: bool = False,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
) -> Any:
    r"""InfoNCE, the loss of two towers: each query must find its key among all keys.

    With `symmetric` also each key its query among all queries, as in CLIP; with `negatives` among
    those as well, as in MoCo. The matrix of similarities is held by "dense" alone, or as one tile.

    Parameters
    ----------
    query, key : ndarray, shape (N, d)
        Row i of both is pair i. float64, float32 or float16, of one
        dtype. Rows may have any length: they are normalised inside.
    negatives : ndarray, shape (K, d) or (N, M, d), optional
        More keys that are nobody's partner: K that all queries share (a queue, say), or M of each
        query's own. They are normalised as well.
    temperature : float or ndarray of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. An array
        receives its gradient from `value_and_grad`.
    ids : ndarray of integers, shape (N,) or (N + K,), optional
        Pairs with equal ids (the same caption, patient, product) are never negatives of each other.
        By default every pair has its own. With K shared negatives they have ids too, after those of
        the pairs: one that is a duplicate of a pair is not its negative. With all pairs of one id
        the negatives alone count. Negatives of a query's own always count.
    symmetric : bool, default False
        The mean of both directions, from one pass. `negatives` are the queries' alone.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "none" gives one value a pair.
    implementation : {"dense", "tiled"}, optional
        "tiled" holds O(N d) and two tiles of at most 512 x 512 a thread, three with a queue;
        "dense" holds a few N^2 matrices. By default "tiled".

    Returns
    -------
    numpy scalar, or ndarray, shape () or (N,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't a numpy.ndarray, for integer or complex dtypes, and for dtypes that
        differ.
    ValueError
        For shapes that aren't (N, d) or differ, negatives of another shape, empty batches,
        a temperature that isn't positive and finite, an unknown choice, and ids of the wrong shape.

    Notes
    -----
    With q, k the normalised rows and N(i) the keys and negatives whose id isn't that of pair i,

    .. math:: \ell_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}
              {\exp(q_i \cdot k_i / \tau) + \sum_{j \in N(i)} \exp(q_i \cdot k_j / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - q_i \cdot k_i / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: at most 8 N^2 d
    flops for "tiled" and for "dense", in one direction or both. For one pair without negatives the
    loss is exactly 0.

    Two runs on one machine give the same bits.

    References
    ----------
    A. van den Oord et al., arXiv 1807.03748. A. Radford et al., arXiv 2103.00020 (both directions).
    K. He et al., arXiv 1911.05722 (a queue).

    Examples
    --------
    >>> import numpy as np
    >>> from ntxent.numpy import info_nce
    >>> image = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> text = np.array([[2.0, 0.0], [0.0, 3.0]])
    >>> loss = info_nce(image, text, temperature=0.5, symmetric=True)
    >>> round(float(loss), 6)
    0.126928
    """
    arrays = query, key, negatives, temperature, ids
    query, key, negatives, temperature, ids = map(native, arrays)
    return _formula.info_nce(
        OPS,
        query,
        key,
        negatives,
        temperature,
        ids,
        symmetric,
        normalize,
        reduction,
        implementation,
    )
