"""`info_nce`: words and defaults; the mathematics is in `_formula`."""

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
def info_nce(
    query: ArrayLike,
    key: ArrayLike,
    negatives: ArrayLike | None = None,
    *,
    temperature: ArrayLike = TEMPERATURE,
    ids: ArrayLike | None = None,
    symmetric: bool = False,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    exchange: str | None = None,
) -> Array:
    r"""InfoNCE, the loss of two towers: each query must find its key among all keys.

    With `symmetric` also each key its query among all queries, as in CLIP; with `negatives` among
    those as well, as in MoCo. The matrix of similarities is held by "dense" alone, or as one tile.

    Parameters
    ----------
    query, key : Array, shape (N, d)
        Row i of both is pair i. float64, float32, bfloat16 or float16, of one
        dtype. Rows may have any length: they are normalised inside.
    negatives : Array, shape (K, d) or (N, M, d), optional
        More keys that are nobody's partner: K that all queries share (a queue, say), or M of each
        query's own. They are normalised as well.
    temperature : float or Array of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. An array,
        traced or not, receives its gradient, and gives NaN if it is not positive and finite.
    ids : Array of integers, shape (N,) or (N + K,), optional
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
        "tiled" holds O(N d) and a few tiles of at most 1024 x 1024; "dense" holds a few N^2
        matrices and also serves forward mode alone: `jvp`, `jacfwd`. By default "tiled", but
        "dense" where `jax.export` leaves N open.
    axis_name : str or tuple of str, optional
        The axes of `shard_map` or `pmap` that one batch is spread over: each process passes
        its own pairs and, of shared negatives, its own part. The notes of `nt_xent` say what losses
        and gradients then are.
    exchange : {"gather", "ring"}, optional
        How processes meet the rows of the others: "gather" holds all of them, "ring" (not for
        "dense") passes them on and holds three shards. By default "gather" up to 256 MiB.

    Returns
    -------
    Array, shape () or (N,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't an array of JAX or NumPy, for integer or complex dtypes, and for
        dtypes that differ.
    ValueError
        For shapes that aren't (N, d) or differ, negatives of another shape, empty batches,
        a temperature that isn't positive and finite, an unknown choice, and ids of the wrong shape.

    Notes
    -----
    With q, k the normalised rows and N(i) the keys and negatives whose id isn't that of pair i,

    .. math:: \ell_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}
              {\exp(q_i \cdot k_i / \tau) + \sum_{j \in N(i)} \exp(q_i \cdot k_j / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - q_i \cdot k_i / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: 8 N^2 d flops for
    "tiled", 6 for "dense", in one direction or both. For one pair without negatives the loss is
    exactly 0. Across W processes with N pairs each it is 10 W N^2 d flops on each process in one
    direction and 12 in both; keys are sent forward, queries too if both are asked for, and both are
    backward.

    Two runs on one machine give the same bits.

    References
    ----------
    A. van den Oord et al., arXiv 1807.03748. A. Radford et al., arXiv 2103.00020 (both directions).
    K. He et al., arXiv 1911.05722 (a queue).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ntxent.jax import info_nce
    >>> image = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> text = jnp.array([[2.0, 0.0], [0.0, 3.0]])
    >>> loss = info_nce(image, text, temperature=0.5, symmetric=True)
    >>> round(float(loss), 6)
    0.126928
    """
    query, key, negatives = taken("query", query), taken("key", key), taken("negatives", negatives)
    temperature, ids = taken_temperature(temperature), taken("ids", ids)
    across = across_of(axis_name, exchange, implementation)
    options = Options(temperature, normalize, reduction, implementation, across)
    loss: Array = _formula.info_nce(OPS, options, query, key, negatives, ids, symmetric)
    return loss
