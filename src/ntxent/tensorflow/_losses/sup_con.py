"""`sup_con`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from typing import Any

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.tensorflow._arguments import check_order, nonempty, taken
from ntxent.tensorflow._operations.backend import OPS
from ntxent.tensorflow._processes.replicas import replicas

Tensor = Any


@named
def sup_con(
    z: Any,
    labels: Any,
    *,
    temperature: Any = TEMPERATURE,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    cross_replica: bool = False,
) -> Any:
    r"""SupCon, the supervised contrastive loss: rows with one label must find each other.

    Each row must find every other row of its label among all other rows. Views of an image are rows
    with its label: any number of them, one included. Neither the n x n matrix of similarities nor a
    mask of which labels are equal is held in memory beyond one tile.

    Parameters
    ----------
    z : Tensor, shape (n, d)
        One row an image, or several. float64, float32, bfloat16 or float16. Rows
        may have any length: they are normalised inside, and a zero row has similarity 0 to
        everything and a zero gradient.
    labels : Tensor of integers, shape (n,)
        Any integers, compared as integers.
    temperature : float or Tensor or Variable of one element, default 0.1
        The divisor of the similarities, as in `nt_xent`.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" is over the rows that have a positive: a row whose label no other row has is left out
        of it, but is a negative of the others. "none" gives one value a row, 0 for such a row. A
        batch of such rows alone, or of one row, has the loss 0 and zero gradients.
    implementation : {"dense", "tiled"}, optional
        "tiled" holds O(n d) and tiles as in `nt_xent`; "dense" holds a few n^2 matrices. By default
        "tiled".
    cross_replica : bool, default False
        True in `strategy.run` makes one batch of the rows of all replicas, of which each passes
        its own: the mean of the losses over the replicas is that of the whole batch, and the mean
        of their gradients its gradient. Bytes and memory are as in `nt_xent`, and 8 bytes a number
        of the rows of all in either pass for the sums of classes.

    Returns
    -------
    Tensor, shape () or (n,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything but tensors and NumPy arrays, for integer or complex rows, and for labels that
        aren't integers.
    ValueError
        For shapes that aren't (n, d) and (n,), empty batches, a temperature that isn't positive and
        finite, and an unknown choice. In a `tf.function` when it is traced.
    RuntimeError
        For `cross_replica=True` outside of `strategy.run`.

    Warns
    -----
    RuntimeWarning
        For labels of which no two are equal. In a graph a tensor isn't read.

    Notes
    -----
    With z the normalised rows and P(i) the other rows of row i's label,

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(z_i \cdot z_p / \tau)}
              {\sum_{k \ne i} \exp(z_i \cdot z_k / \tau)}

    where the positives enter through the sum of each class, O(n d), and a row with one positive
    alone has the loss of NT-Xent, however small. Time: forward and backward together at most 4 n^2
    d flops for "tiled", 6 for "dense". There is no `base_temperature`: docs/which-loss.md has the
    line for implementations that have one.

    References
    ----------
    P. Khosla et al., Supervised contrastive learning, arXiv 2004.11362, eq. 2.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from ntxent.tensorflow import sup_con
    >>> z = tf.constant([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> loss = sup_con(z, tf.constant([5, 5, 8, 8]), temperature=0.5)
    >>> round(float(loss), 6)
    0.239545
    """
    z, labels = taken("z", z), taken("labels", labels)
    check_order(z, labels)
    (z,) = nonempty((z,), reduction, cross_replica)
    temperature = taken("temperature", temperature)
    across = replicas(cross_replica)
    options = Options(temperature, normalize, reduction, implementation, across)
    return _formula.sup_con(OPS, options, z, labels)
