"""`sup_con`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from torch import Tensor
from torch.distributed import ProcessGroup

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.torch._operations.backend import OPS
from ntxent.torch._processes.across import Processes


@named
def sup_con(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = TEMPERATURE,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    group: ProcessGroup | bool | None = None,
    exchange: str | None = None,
) -> Tensor:
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
        Any integers of int8 to int64 and uint8, compared as integers.
    temperature : float or Tensor of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. A tensor
        receives its gradient, and gives NaN if it is not positive and finite.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" is over the rows that have a positive: a row whose label no other row has is left out
        of it, but is a negative of the others. "none" gives one value a row, 0 for such a row. A
        batch of such rows alone, or of one row, has the loss 0 and zero gradients.
    implementation : {"dense", "tiled", "triton"}, optional
        "tiled" holds O(n d), at most 48 MiB of tiles and two of 512 x 512 a thread; "dense" holds a
        few n^2 matrices; "triton" holds O(n d), on a CUDA GPU of capability 8.0 or higher, for all
        dtypes but float64. By default "triton" where it serves, else "tiled".
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
    Tensor, shape () or (n,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't a tensor, for integer or complex rows, and for labels that aren't
        integers.
    ValueError
        For shapes that aren't (n, d) and (n,), empty batches, devices that differ, a temperature
        that isn't positive and finite, and an unknown choice.
    RuntimeError
        For `implementation="triton"` where it can't serve, with a message that says why; with a
        group, where `torch.distributed` isn't initialized or another process refused its shard.

    Warns
    -----
    RuntimeWarning
        For labels of which no two are equal. A tensor isn't read while tracing, on a GPU, or with a
        group, and nothing warns.

    Notes
    -----
    With z the normalised rows and P(i) the other rows of row i's label,

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(z_i \cdot z_p / \tau)}
              {\sum_{k \ne i} \exp(z_i \cdot z_k / \tau)}

    where the positives enter through the sum of each class, O(n d), and a row with one positive
    alone has the loss of NT-Xent, however small. Time: forward and backward together at most 4 n^2
    d flops for "tiled", 6 for "dense" and "triton". There is no `base_temperature`:
    docs/which-loss.md has the line for implementations that have one.

    Two runs on one machine give the same bits. Compiled, or a tensor on a GPU: docs/pytorch.md.

    References
    ----------
    P. Khosla et al., Supervised contrastive learning, arXiv 2004.11362, eq. 2.

    Examples
    --------
    >>> import torch
    >>> from ntxent.torch import sup_con
    >>> z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> loss = sup_con(z, torch.tensor([5, 5, 8, 8]), temperature=0.5)
    >>> round(loss.item(), 6)
    0.239545
    """
    across = Processes.of(group, exchange)
    options = Options(temperature, normalize, reduction, implementation, across)
    loss: Tensor = _formula.sup_con(OPS, options, z, labels)
    return loss
