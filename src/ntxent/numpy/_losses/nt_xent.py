"""`nt_xent`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from typing import Any

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
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
    options = Options(temperature, normalize, reduction, implementation)
    return _formula.nt_xent(OPS, options, arrays, ids, denominator)
