"""`nt_xent`: words and defaults; the mathematics is in `_formula`."""

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
def nt_xent(
    *views: ArrayLike,
    temperature: ArrayLike = TEMPERATURE,
    ids: ArrayLike | None = None,
    denominator: str = "all",
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    exchange: str | None = None,
) -> Array:
    r"""NT-Xent, the contrastive loss of SimCLR, over two or more views of the same images.

    Each row must find the other views of its image among all rows of the batch. The n x n matrix
    of similarities is held by "dense" alone, or as one tile.

    Parameters
    ----------
    *views : jax.Array, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32, bfloat16 or float16,
        all of one shape and dtype, traced or not. This and all other arrays may be NumPy's, which
        count as what `jax.numpy.asarray` makes of them. Rows may have any length: they are
        normalised inside, and a zero row has similarity 0 to everything and a zero gradient.
    temperature : float or Array of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. An array,
        traced or not, receives its gradient, and gives NaN if it is not positive and finite.
    ids : Array of integers, shape (N,), optional
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
        "tiled" holds O(N d) and a few tiles of at most 1024 x 1024, and serves `grad`, `vjp`,
        `vmap`, `jacrev`, gradients of gradients, `hessian` and `jvp` of `grad`; "dense" holds a few
        (V N)^2 matrices and also serves forward mode alone: `jvp`, `jacfwd`. By default "tiled",
        but "dense" where `jax.export` leaves N open.
    axis_name : str or tuple of str, optional
        The axes of `shard_map` or `pmap` that one batch is spread over, named as for `lax.psum`:
        each process passes all views of its own images, N of them, and the mean of losses over
        processes is that of the whole batch (Notes). By default there is one process.
    exchange : {"gather", "ring"}, optional
        How processes meet the rows of the others: "gather" holds all W V N of them, "ring" (not for
        "dense") passes them on and holds three shards. By default "gather" up to 256 MiB.

    Returns
    -------
    Array, shape () or (V N,) for "none"
        In float64 for float64 views and in float32 for all others. Gradients have the dtype of the
        views. NaN or infinity in a view makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't an array of JAX or NumPy, for integer or complex dtypes, for dtypes
        that differ, for names that aren't strings, and for forward mode alone through "tiled".
    ValueError
        For fewer than two views, shapes that aren't (N, d) or differ, empty batches, a temperature
        that isn't positive and finite, an unknown choice, ids of the wrong shape,
        `denominator="negatives"` for a batch without negatives, arrays that are sharded over
        Explicit axes of a mesh, and "tiled" for an N that is left open. Under `jit` when traced.

    Notes
    -----
    With z the n = V N normalised rows, j(i) the partner of row i and N(i) the rows of other images,

    .. math:: \ell_i = -\log \frac{\exp(z_i \cdot z_{j(i)} / \tau)}
              {\exp(z_i \cdot z_{j(i)} / \tau) + \sum_{k \in N(i)} \exp(z_i \cdot z_k / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - z_i \cdot z_{j(i)} / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: forward and backward
    together at most 4 n^2 d flops for "tiled", 6 for "dense". For one image and two views the loss
    is exactly 0.

    A temperature that is a number is known when the function is traced; to change it from step to
    step without compiling again, pass an array. Products of tiles have float32's digits on every
    device unless `jax_default_matmul_precision` is set. Gradients of gradients are right: `jvp` of
    `grad` in the memory of "tiled", `grad` of `grad` in that of "dense".

    Across W processes of n rows each, the gradients of a process's rows are the sum of what the
    losses of all have for them, and the mean over processes of the gradients of weights is that of
    the whole batch: `lax.pmean(jax.value_and_grad(loss)(weights), axis_name)`. Where `shard_map`
    checks which arrays vary (`check_vma=True`, its default) JAX sums gradients of what is on all
    processes by itself: differentiate `lax.pmean(loss(weights), axis_name)` there, and average no
    gradients. The temperature must be the same on all processes. Time on each: 6 W n^2 d flops;
    with either exchange a process receives the (W - 1) n rows of the others forward, once more
    backward, and no gradients of them ("dense": gradients instead). Arrays that plain `jit` finds
    sharded over a mesh of Auto axes need no `axis_name`; but while the compiler divides "dense"
    among devices, each of them computes all tiles of "tiled".

    Two runs on one machine give the same bits.

    References
    ----------
    T. Chen et al., A simple framework for contrastive learning of visual representations,
    arXiv 2002.05709, eq. 1. P. Khosla et al., arXiv 2004.11362, eq. 2 (more than two views).
    C.-H. Yeh et al., arXiv 2110.06848 (decoupled).

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntxent.jax import nt_xent
    >>> z1 = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> z2 = jnp.array([[2.0, 0.0], [0.0, 3.0]])
    >>> round(float(nt_xent(z1, z2, temperature=0.5)), 6)
    0.239545
    >>> step = jax.jit(jax.value_and_grad(lambda z1, z2: nt_xent(z1, z2, temperature=0.5)))
    >>> loss, gradient = step(z1, z2)
    >>> gradient.shape
    (2, 2)
    """
    views = tuple(taken(f"view {number}", view) for number, view in enumerate(views, 1))
    temperature, ids = taken_temperature(temperature), taken("ids", ids)
    across = across_of(axis_name, exchange, implementation)
    options = Options(temperature, normalize, reduction, implementation, across)
    loss: Array = _formula.nt_xent(OPS, options, views, ids, denominator)
    return loss
