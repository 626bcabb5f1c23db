"""`info_nce`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from typing import Any

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.numpy._operations.backend import OPS, native
from ntxent.numpy._pairs.tiled import Array


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
    options = Options(temperature, normalize, reduction, implementation)
    return _formula.info_nce(OPS, options, query, key, negatives, ids, symmetric)
