"""`nt_xent`: words and defaults; the mathematics is in `_formula`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ntxent import _formula
from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE, Options
from ntxent.tensorflow._arguments import nonempty, same_shape, taken
from ntxent.tensorflow._operations.backend import OPS
from ntxent.tensorflow._processes.replicas import replicas

Tensor = Any


@tf.autograph.experimental.do_not_convert  # nothing here for AutoGraph, and it would take seconds
@named
def nt_xent(
    *views: Tensor,
    temperature: float | Tensor = TEMPERATURE,
    ids: Tensor | None = None,
    denominator: str = "all",
    normalize: bool = True,
    reduction: str = "mean",
    implementation: str | None = None,
    cross_replica: bool = False,
) -> Tensor:
    r"""NT-Xent, the contrastive loss of SimCLR, over two or more views of the same images.

    Each row must find the other views of its image among all rows of the batch. The n x n matrix
    of similarities is held by "dense" alone, or as one tile.

    Parameters
    ----------
    *views : Tensor or Variable, shape (N, d)
        Two or more views; row i of each comes from image i. float64, float32, bfloat16 or float16,
        all of one shape and dtype, eager or symbolic; N and d may be unknown. Variables may be
        TensorFlow's or Keras', and wherever a tensor is taken so is a NumPy array. Rows may have
        any length: they are normalised inside, and a zero row has similarity 0 to everything and a
        zero gradient.
    temperature : float or Tensor or Variable of one element, default 0.1
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
    implementation : {"dense", "tiled"}, optional
        "tiled" holds O(N d), a few tiles (512 x 512, or all of up to 2048 rows) and under
        `jit_compile=True` up to 128 MiB of them for the gradient; "dense" holds a few (V N)^2
        matrices and is differentiated by TensorFlow alone, so it also serves forward mode
        (`ForwardAccumulator`), which "tiled" refuses. By default "tiled".
    cross_replica : bool, default False
        True in `strategy.run` makes one batch of the views of all replicas, of which each passes
        its own: the mean of the losses over the replicas is that of the whole batch, and the mean
        of their gradients its gradient. See Notes.

    Returns
    -------
    Tensor, shape () or (V N,) for "none"
        In float64 for float64 views and in float32 for all others. Gradients have the dtype of the
        views. NaN or infinity in a view makes the loss NaN or infinite.

    Raises
    ------
    TypeError
        For anything but tensors and arrays, for integer or complex dtypes, and dtypes that differ.
    ValueError
        For fewer than two views, shapes that aren't (N, d) or differ, empty batches, a temperature
        that isn't positive and finite, an unknown choice, ids of the wrong shape, and
        `denominator="negatives"` for a batch without negatives. In a `tf.function` when it is
        traced; sizes of views or ids that are unknown then and turn out to differ, or to be 0, are
        TensorFlow's `InvalidArgumentError` when it runs. XLA gives NaN for the mean of an empty
        batch.
    NotImplementedError
        For forward mode of "tiled".
    RuntimeError
        For `cross_replica=True` outside of `strategy.run`.

    Notes
    -----
    With z the n = V N normalised rows, j(i) the partner of row i and N(i) the rows of other images,

    .. math:: \ell_i = -\log \frac{\exp(z_i \cdot z_{j(i)} / \tau)}
              {\exp(z_i \cdot z_{j(i)} / \tau) + \sum_{k \in N(i)} \exp(z_i \cdot z_k / \tau)}

    computed as :math:`\mathrm{softplus}(L_i - z_i \cdot z_{j(i)} / \tau)` with :math:`L_i` the
    log-sum-exp over N(i), which keeps its digits however small the loss. Time: forward and backward
    together at most 4 n^2 d flops for "tiled", 6 for "dense". For one image and two views the loss
    is exactly 0.

    Above 2048 rows, if N is known when the function is traced, XLA compiles the loop over tiles,
    which takes seconds once for each shape.

    Second derivatives (nested tapes) are right, in the memory of "dense". On a GPU, TensorFlow
    rounds the factors of float32 products to TensorFloat-32 unless
    `tf.config.experimental.enable_tensor_float_32_execution(False)` is called.

    Two runs on one machine give the same bits.

    `tf.debugging.enable_check_numerics()` finds nothing in a batch of finite rows, but for a row
    without any negative (one image alone, ids that are all equal): the log-sum-exp of no pairs is
    -infinity, from which the loss is right.

    `cross_replica` serves `tf.distribute.MirroredStrategy` and `MultiWorkerMirroredStrategy`. Each
    of the W replicas, which may hold different numbers of images, gathers the rows of all: W V N d
    numbers of 4 bytes (8 in float64), kept for both passes, and two more a row for the gradient;
    "dense" also adds up W V N d numbers of gradients. Memory is O(W V N d) for "tiled", a few
    matrices of V N x W V N for "dense". Equal ids mean one image on whatever replica. Where
    gradients are added up over replicas, as by Keras' optimizers, divide the loss by
    `strategy.num_replicas_in_sync`; `NTXentLoss` has done so. Take the gradient in `strategy.run`
    too, and call the loss in no loop, condition or inner `tf.function`: strategies can't exchange
    in those. What one replica refuses ends all. The temperature must be the same on all replicas.

    References
    ----------
    T. Chen et al., A simple framework for contrastive learning of visual representations,
    arXiv 2002.05709, eq. 1. P. Khosla et al., arXiv 2004.11362, eq. 2 (more than two views).
    C.-H. Yeh et al., arXiv 2110.06848 (decoupled).

    Examples
    --------
    >>> import tensorflow as tf
    >>> from ntxent.tensorflow import nt_xent
    >>> z1 = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> z2 = tf.constant([[2.0, 0.0], [0.0, 3.0]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(z1)
    ...     loss = nt_xent(z1, z2, temperature=0.5)
    >>> round(float(loss), 6)
    0.239545
    >>> tape.gradient(loss, z1).shape
    TensorShape([2, 2])
    """
    given = same_shape([taken(f"view {number}", view) for number, view in enumerate(views, 1)])
    given = nonempty(given, reduction, cross_replica)
    temperature, ids = taken("temperature", temperature), taken("ids", ids)
    across = replicas(cross_replica)
    options = Options(temperature, normalize, reduction, implementation, across)
    return _formula.nt_xent(OPS, options, given, ids, denominator)
