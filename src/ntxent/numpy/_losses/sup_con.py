"""`sup_con`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from typing import Any

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.numpy._operations.backend import OPS, native
from ntxent.numpy._pairs.tiled import Array


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
    options = Options(temperature, normalize, reduction, implementation)
    return _formula.sup_con(OPS, options, z, labels)
