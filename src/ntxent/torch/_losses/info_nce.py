"""`info_nce`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from torch import Tensor
from torch.distributed import ProcessGroup

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.torch._operations.backend import OPS
from ntxent.torch._processes.across import Processes


@named
def info_nce(
    query: Tensor,
    key: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float | Tensor = TEMPERATURE,
    ids: Tensor | None = None,
    symmetric: bool = False,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    group: ProcessGroup | bool | None = None,
    exchange: str | None = None,
) -> Tensor:
    r"""InfoNCE, the loss of two towers: each query must find its key among all keys.

    With `symmetric` also each key its query among all queries, as in CLIP; with `negatives` among
    those as well, as in MoCo. The matrix of similarities is held by "dense" alone, or as one tile.

    Parameters
    ----------
    query, key : Tensor, shape (N, d)
        Row i of both is pair i. float64, float32, bfloat16 or float16, of one
        dtype. Rows may have any length: they are normalised inside.
    negatives : Tensor, shape (K, d) or (N, M, d), optional
        More keys that are nobody's partner: K that all queries share (a queue, say), or M of each
        query's own. They are normalised as well.
    temperature : float or Tensor of one element, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-3 up. A tensor
        receives its gradient, and gives NaN if it is not positive and finite.
    ids : Tensor of integers, shape (N,) or (N + K,), optional
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
    implementation : {"dense", "tiled", "triton"}, optional
        "tiled" holds O(N d), at most 48 MiB of tiles and two of 512 x 512 a thread; "dense" holds a
        few N^2 matrices; "triton" holds O(N d), on a CUDA GPU of capability 8.0 or higher, for all
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
    Tensor, shape () or (N,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything that isn't a tensor, for integer or complex dtypes, and for dtypes that differ.
    ValueError
        For shapes that aren't (N, d) or differ, negatives of another shape, empty batches, devices
        that differ, a temperature that isn't positive and finite, an unknown choice, and ids of the
        wrong shape.
    RuntimeError
        For `implementation="triton"` where it can't serve, with a message that says why; with a
        group, where `torch.distributed` isn't initialized or another process refused its shard.

    Notes
    -----
    With q, k the normalised rows and N(i) the keys and negatives whose id isn't that of pair i,

    .. math:: \ell_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}
              {\exp(q_i \cdot k_i / \tau) + \sum_{j \in N(i)} \exp(q_i \cdot k_j / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - q_i \cdot k_i / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: 8 N^2 d flops for
    "tiled", 6 for "dense", 10 or 12 for "triton". For one pair without negatives the loss is
    exactly 0.

    Two runs on one machine give the same bits. Compiled, or a tensor on a GPU: docs/pytorch.md.

    References
    ----------
    A. van den Oord et al., arXiv 1807.03748. A. Radford et al., arXiv 2103.00020 (both directions).
    K. He et al., arXiv 1911.05722 (a queue).

    Examples
    --------
    >>> import torch
    >>> from ntxent.torch import info_nce
    >>> image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> text = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    >>> loss = info_nce(image, text, temperature=0.5, symmetric=True)
    >>> round(loss.item(), 6)
    0.126928
    """
    across = Processes.of(group, exchange)
    options = Options(temperature, normalize, reduction, implementation, across)
    loss: Tensor = _formula.info_nce(OPS, options, query, key, negatives, ids, symmetric)
    return loss
