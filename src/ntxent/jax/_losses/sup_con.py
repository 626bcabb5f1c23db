"""`sup_con`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from jax import Array
from jax.typing import ArrayLike

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.jax._arguments import taken, taken_temperature
from ntxent.jax._operations.backend import OPS
from ntxent.jax._processes.mesh import across_of


@named
def sup_con(
    z: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = TEMPERATURE,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    exchange: str | None = None,
) -> Array:
    r"""SupCon, the supervised contrastive loss: rows with one label must find each other.

    Each row must find every other row of its label among all other rows. Views of an image are rows
    with its label: any number of them, one included. Neither the n x n matrix of similarities nor a
    mask of which labels are equal is held in memory beyond one tile.

    Parameters
    ----------
    z : Array, shape (n, d)
        One row an image, or several. float64, float32, bfloat16 or float16. Rows
        may have any length: they are normalised inside, and a zero row has similarity 0 to
        everything and a zero gradient.
    labels : Array of integers, shape (n,)
        Any integers, compared as integers.
    temperature : float or Array of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. An array,
        traced or not, receives its gradient, and gives NaN if it is not positive and finite.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" is over the rows that have a positive: a row whose label no other row has is left out
        of it, but is a negative of the others. "none" gives one value a row, 0 for such a row. A
        batch of such rows alone, or of one row, has the loss 0 and zero gradients.
    implementation : {"dense", "tiled"}, optional
        "tiled" holds O(n d) and a few tiles of at most 1024 x 1024; "dense" holds a few n^2
        matrices and also serves forward mode alone: `jvp`, `jacfwd`. By default "tiled", but
        "dense" where `jax.export` leaves n open.
    axis_name : str or tuple of str, optional
        The axes of `shard_map` or `pmap` that one batch is spread over: each process passes
        its own rows, and a class may be on several. The notes of `nt_xent` say what losses and
        gradients then are.
    exchange : {"gather", "ring"}, optional
        How processes meet the rows of the others: "gather" holds all of them, "ring" (not for
        "dense") passes them on and holds three shards. By default "gather" up to 256 MiB.

    Returns
    -------
    Array, shape () or (n,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't an array of JAX or NumPy, for integer or complex rows, and for
        labels that aren't integers.
    ValueError
        For shapes that aren't (n, d) and (n,), empty batches, a temperature that isn't positive and
        finite, and an unknown choice. Under `jit` when it is traced.

    Warns
    -----
    RuntimeWarning
        For labels of which no two are equal. Those of a traced array aren't read.

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

    Two runs on one machine give the same bits.

    References
    ----------
    P. Khosla et al., Supervised contrastive learning, arXiv 2004.11362, eq. 2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntxent.jax import sup_con
    >>> z = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> loss = sup_con(z, jnp.array([5, 5, 8, 8]), temperature=0.5)
    >>> round(float(loss), 6)
    0.239545
    """
    z, labels = taken("z", z), taken("labels", labels)
    temperature = taken_temperature(temperature)
    across = across_of(axis_name, exchange, implementation)
    options = Options(temperature, normalize, reduction, implementation, across)
    loss: Array = _formula.sup_con(OPS, options, z, labels)
    return loss
