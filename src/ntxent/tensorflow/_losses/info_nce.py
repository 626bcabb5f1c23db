"""`info_nce`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from typing import Any

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.tensorflow._arguments import nonempty, same_shape, taken
from ntxent.tensorflow._operations.backend import OPS
from ntxent.tensorflow._processes.replicas import replicas


@named
def info_nce(
    query: Any,
    key: Any,
    negatives: Any = None,
    *,
    temperature: Any = TEMPERATURE,
    ids: Any = None,
    symmetric: bool = False,
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    cross_replica: bool = False,
) -> Any:
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
    temperature : float or Tensor or Variable of one element, default 0.1
        The divisor of the similarities, as in `nt_xent`.
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
    implementation : {"dense", "tiled"}, optional
        "tiled" holds O(N d) and tiles as in `nt_xent`; "dense" holds a few N^2 matrices. By default
        "tiled".
    cross_replica : bool, default False
        True in `strategy.run` makes one batch of the pairs of all replicas, of which each passes
        its own: the mean of the losses over the replicas is that of the whole batch, and the mean
        of their gradients its gradient. Shared negatives are those of all replicas as well, so
        that of a queue that all of them hold each passes a part. Bytes and memory are as in
        `nt_xent`, with both sides and the negatives for rows.

    Returns
    -------
    Tensor, shape () or (N,) for "none"
        In float64 for float64 rows and in float32 for all others. Gradients have the dtype of the
        rows. NaN or infinity in a row makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything but tensors and NumPy arrays, for integer or complex dtypes, and for dtypes
        that differ.
    ValueError
        For shapes that aren't (N, d) or differ, negatives of another shape, empty batches,
        a temperature that isn't positive and finite, an unknown choice, and ids of the wrong shape.
    RuntimeError
        For `cross_replica=True` outside of `strategy.run`.

    Notes
    -----
    With q, k the normalised rows and N(i) the keys and negatives whose id isn't that of pair i,

    .. math:: \ell_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}
              {\exp(q_i \cdot k_i / \tau) + \sum_{j \in N(i)} \exp(q_i \cdot k_j / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - q_i \cdot k_i / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: 8 N^2 d flops for
    "tiled", 6 for "dense", in one direction or both. For one pair without negatives the loss is
    exactly 0.

    References
    ----------
    A. van den Oord et al., arXiv 1807.03748. A. Radford et al., arXiv 2103.00020 (both directions).
    K. He et al., arXiv 1911.05722 (a queue).

    Examples
    --------
    >>> import tensorflow as tf
    >>> from ntxent.tensorflow import info_nce
    >>> image = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> text = tf.constant([[2.0, 0.0], [0.0, 3.0]])
    >>> loss = info_nce(image, text, temperature=0.5, symmetric=True)
    >>> round(float(loss), 6)
    0.126928
    """
    query, key = same_shape((taken("query", query), taken("key", key)))
    query, key = nonempty((query, key), reduction, cross_replica)
    negatives, ids = taken("negatives", negatives), taken("ids", ids)
    temperature = taken("temperature", temperature)
    across = replicas(cross_replica)
    options = Options(temperature, normalize, reduction, implementation, across)
    return _formula.info_nce(OPS, options, query, key, negatives, ids, symmetric)
