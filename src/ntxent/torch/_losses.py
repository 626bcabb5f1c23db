"""The public functions for PyTorch: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from torch import Tensor

from ntxent import _formula
from ntxent._spec import TEMPERATURE
from ntxent.torch._ops import OPS


def nt_xent(
    *views: Tensor,
    temperature: float | Tensor = TEMPERATURE,
    ids: Tensor | None = None,
    denominator: str = "all",
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
) -> Tensor:
    r"""NT-Xent, the contrastive loss of SimCLR, over two or more views of the same images.

    Each row must find the other views of its image among all rows of the batch. The n x n matrix
    of similarities is never held in memory.

    Parameters
    ----------
    *views : Tensor, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32, bfloat16 or float16,
        all of one shape, dtype and device, contiguous or not. Rows may have any length: they are
        normalised inside, and a zero row has similarity 0 to everything and a zero gradient.
    temperature : float or 0-d Tensor, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-4 up. A tensor
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
        "tiled" holds O(N d) and at most 48 MiB of tiles; "dense" holds a few (V N)^2 matrices;
        "triton" holds O(N d), on a CUDA GPU of capability 8.0 or higher, for all dtypes but
        float64. By default "triton" where it serves, else "tiled".

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
        For `implementation="triton"` where it can't serve; the message says why.

    Notes
    -----
    With z the n = V N normalised rows, j(i) the partner of row i and N(i) the rows of other images,

    .. math:: \ell_i = -\log \frac{\exp(z_i \cdot z_{j(i)} / \tau)}
              {\exp(z_i \cdot z_{j(i)} / \tau) + \sum_{k \in N(i)} \exp(z_i \cdot z_k / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - z_i \cdot z_{j(i)} / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: at most 4 n^2 d
    flops for "tiled", 6 for "triton", in all. For one image and two views the loss is exactly 0.

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
    loss: Tensor = _formula.nt_xent(
        OPS, views, temperature, ids, denominator, normalize, reduction, implementation
    )
    return loss


def sup_con(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = TEMPERATURE,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
) -> Tensor:
    r"""SupCon, the supervised contrastive loss: rows with one label must find each other.

    Each row must find every other row of its label among all other rows. Views of an image are rows
    with its label: any number of them, one included. Neither the n x n matrix of similarities nor a
    mask of which labels are equal is ever held in memory.

    Parameters
    ----------
    z : Tensor, shape (n, d)
        One row an image, or several. float64, float32, bfloat16 or float16. Rows
        may have any length: they are normalised inside, and a zero row has similarity 0 to
        everything and a zero gradient.
    labels : Tensor of integers, shape (n,)
        Any integers of int8 to int64 and uint8, compared as integers.
    temperature : float or 0-d Tensor, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-4 up. A tensor
        receives its gradient, and gives NaN if it is not positive and finite.
    normalize : bool, default True
        False takes the dot products of the rows as they are.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" is over the rows that have a positive: a row whose label no other row has is left out
        of it, but is a negative of the others. "none" gives one value a row, 0 for such a row.
    implementation : {"dense", "tiled", "triton"}, optional
        "tiled" holds O(n d) and at most 48 MiB of tiles; "dense" holds a few n^2 matrices; "triton"
        holds O(n d), on a CUDA GPU of capability 8.0 or higher, for all dtypes but float64. By
        default "triton" where it serves, else "tiled".

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
        that isn't positive and finite, an unknown choice, and labels of which no two are equal;
        while tracing and on a GPU labels aren't read beforehand, and the loss is NaN for such.
    RuntimeError
        For `implementation="triton"` where it can't serve; the message says why.

    Notes
    -----
    With z the normalised rows and P(i) the other rows of row i's label,

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(z_i \cdot z_p / \tau)}
              {\sum_{k \ne i} \exp(z_i \cdot z_k / \tau)}

    where the positives enter through the sum of each class, O(n d), and a row with one positive
    alone has the loss of NT-Xent, however small. Time, both passes: at most 4 n^2 d flops for
    "tiled", 6 for "triton". There is no `base_temperature`: docs/which-loss.md has the line for
    implementations that have one.

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
    loss: Tensor = _formula.sup_con(
        OPS, z, labels, temperature, normalize, reduction, implementation
    )
    return loss


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
) -> Tensor:
    r"""InfoNCE, the loss of two towers: each query must find its key among all keys.

    With `symmetric` also each key its query among all queries, as in CLIP; with `negatives` among
    those as well, as in MoCo. The matrix of similarities is never held in memory.

    Parameters
    ----------
    query, key : Tensor, shape (N, d)
        Row i of both is pair i. float64, float32, bfloat16 or float16, of one
        dtype. Rows may have any length: they are normalised inside.
    negatives : Tensor, shape (K, d) or (N, M, d), optional
        More keys that are nobody's partner: K that all queries share (a queue, say), or M of each
        query's own. They are normalised as well.
    temperature : float or 0-d Tensor, default 0.1
        The divisor of the similarities, dimensionless, positive; accurate from 1e-4 up. A tensor
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
        "tiled" holds O(N d) and at most 48 MiB of tiles; "dense" holds a few N^2 matrices; "triton"
        holds O(N d), on a CUDA GPU of capability 8.0 or higher, for all dtypes but float64. By
        default "triton" where it serves, else "tiled".

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
        For `implementation="triton"` where it can't serve; the message says why.

    Notes
    -----
    With q, k the normalised rows and N(i) the keys and negatives whose id isn't that of pair i,

    .. math:: \ell_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}
              {\exp(q_i \cdot k_i / \tau) + \sum_{j \in N(i)} \exp(q_i \cdot k_j / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - q_i \cdot k_i / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: 8 N^2 d flops for
    "tiled", 10 or 12 for "triton". For one pair without negatives the loss is exactly 0.

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
    loss: Tensor = _formula.info_nce(
        OPS,
        query,
        key,
        negatives,
        temperature,
        ids,
        symmetric,
        normalize,
        reduction,
        implementation,
    )
    return loss
