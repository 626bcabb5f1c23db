"""`nt_xent`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from torch import Tensor
from torch.distributed import ProcessGroup

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.torch._operations.backend import OPS
from ntxent.torch._processes.across import Processes


@named
def nt_xent(
    *views: Tensor,
    temperature: float | Tensor = TEMPERATURE,
    ids: Tensor | None = None,
    denominator: str = "all",
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    group: ProcessGroup | bool | None = None,
    exchange: str | None = None,
) -> Tensor:
    r"""NT-Xent, the contrastive loss of SimCLR, over two or more views of the same images.

    Each row must find the other views of its image among all rows of the batch. The n x n matrix
    of similarities is held by "dense" alone, or as one tile.

    Parameters
    ----------
    *views : Tensor, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32, bfloat16 or float16,
        all of one shape, dtype and device, contiguous or not. Rows may have any length: they are
        normalised inside, and a zero row has similarity 0 to everything and a zero gradient.
    temperature : float or Tensor of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. A tensor
        receives its gradient, and gives NaN if it is not positive and finite.
    ids : Tensor of integers, shape (N,), optional
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
    implementation : {"dense", "tiled", "triton"}, optional
        "tiled" holds O(N d), at most 48 MiB of tiles and two of 512 x 512 a thread; "dense" holds a
        few (V N)^2 matrices; "triton" holds O(N d), on a CUDA GPU of capability 8.0 or higher, for
        all dtypes but float64. By default "triton" where it serves, else "tiled".
    group : True or torch.distributed.ProcessGroup, optional
        The batch of all its processes: each passes its shard. The mean of what they return is the
        loss of the whole batch, and gradients averaged over processes, as DDP does, are its
        gradient. Shards may differ in their number of rows; everything else must be the same on all
        processes. docs/scaling.md has bytes, operations, memory.
    exchange : {"gather", "ring"}, optional
        How rows come from other processes: all at once, O(n d) memory, or one shard after the
        other, each on its way while the one before is worked on, O(n d / processes). Both exchanges
        give the same bits. By default rows of up to 256 MiB in all are gathered.

    Returns
    -------
    Tensor, shape () or (V N,) for "none"
        In float64 for float64 views and in float32 for all others. Gradients have the dtype of the
        views. NaN or infinity in a view makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't a tensor, for integer or complex dtypes, and for dtypes that differ.
    ValueError
        For fewer than two views, shapes that aren't (N, d) or differ, empty batches, devices that
        differ, a temperature that isn't positive and finite, an unknown choice, ids of the wrong
        shape, and `denominator="negatives"` for a batch without negatives.
    RuntimeError
        For `implementation="triton"` where it can't serve, with a message that says why; with a
        group, where `torch.distributed` isn't initialized or another process refused its shard.

    Notes
    -----
    With z the n = V N normalised rows, j(i) the partner of row i and N(i) the rows of other images,

    .. math:: \ell_i = -\log \frac{\exp(z_i \cdot z_{j(i)} / \tau)}
              {\exp(z_i \cdot z_{j(i)} / \tau) + \sum_{k \in N(i)} \exp(z_i \cdot z_k / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - z_i \cdot z_{j(i)} / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: forward and backward
    together at most 4 n^2 d flops for "tiled", 6 for "dense" and "triton". For one image and two
    views the loss is exactly 0.

    The gradients of a mean or a sum are computed with it, so evaluate without them under `no_grad`.
    Every derivative, `torch.func`, `torch.compile`, `torch.export` and `torch.autocast` are served,
    and ids of a tensor on a GPU aren't read beforehand: docs/pytorch.md says what becomes of it.

    Two runs on one machine give the same bits. Compiled, or a tensor on a GPU: docs/pytorch.md.

    References
    ----------
    T. Chen et al., A simple framework for contrastive learning of visual representations,
    arXiv 2002.05709, eq. 1. P. Khosla et al., arXiv 2004.11362, eq. 2 (more than two views).
    C.-H. Yeh et al., arXiv 2110.06848 (decoupled).

    Examples
    --------
    >>> import torch
    >>> from ntxent.torch import nt_xent
    >>> z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    >>> z2 = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    >>> loss = nt_xent(z1, z2, temperature=0.5)
    >>> round(loss.item(), 6)
    0.239545
    >>> loss.backward()
    >>> tuple(z1.grad.shape)
    (2, 2)
    """
    across = Processes.of(group, exchange)
    options = Options(temperature, normalize, reduction, implementation, across)
    loss: Tensor = _formula.nt_xent(OPS, options, views, ids, denominator)
    return loss
