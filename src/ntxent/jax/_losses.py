"""The public functions for JAX: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from jax import Array

from ntxent import _formula
from ntxent._spec import TEMPERATURE
from ntxent.jax._ops import OPS


def nt_xent(
    *views: Array,
    temperature: float | Array = TEMPERATURE,
    ids: Array | None = None,
    denominator: str = "all",
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
) -> Array:
    r"""NT-Xent, the contrastive loss of SimCLR, over two or more views of the same images.

    Each row must find the other views of its image among all rows of the batch. The n x n matrix
    of similarities is never held in memory.

    Parameters
    ----------
    *views : jax.Array, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32, bfloat16 or float16,
        all of one shape and dtype, traced or not. Rows may have any length: they are
        normalised inside, and a zero row has similarity 0 to everything and a zero gradient.
    temperature : float or 0-d Array, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-4 up. An array,
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
        (V N)^2 matrices and also serves forward mode alone: `jvp`, `jacfwd`. By default "tiled".

    Returns
    -------
    Array, shape () or (V N,) for "none"
        In float64 for float64 views and in float32 for all others. Gradients have the dtype of the
        views. NaN or infinity in a view makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't a jax.Array, for integer or complex dtypes, for dtypes that differ,
        and for forward mode alone through "tiled".
    ValueError
        For fewer than two views, shapes that aren't (N, d) or differ, empty batches, a temperature
        that isn't positive and finite, an unknown choice, ids of the wrong shape, and
        `denominator="negatives"` for a batch without negatives. Under `jit` when it is traced.

    Notes
    -----
    With z the n = V N normalised rows, j(i) the partner of row i and N(i) the rows of other images,

    .. math:: \ell_i = -\log \frac{\exp(z_i \cdot z_{j(i)} / \tau)}
              {\exp(z_i \cdot z_{j(i)} / \tau) + \sum_{k \in N(i)} \exp(z_i \cdot z_k / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - z_i \cdot z_{j(i)} / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: at most 4 n^2 d
    flops, forward and backward together. For one image and two views the loss is exactly 0.

    A temperature that is a number is known when the function is traced; to change it from step to
    step without compiling again, pass an array. Products of tiles have float32's digits on every
    device unless `jax_default_matmul_precision` is set. Gradients of gradients are right: `jvp` of
    `grad` in the memory of "tiled", `grad` of `grad` in that of "dense".

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
    loss: Array = _formula.nt_xent(
        OPS, views, temperature, ids, denominator, normalize, reduction, implementation
    )
    return loss
