"""TensorFlow's, each as a graph and under XLA (`runs.TensorflowRun` reads `compiles`)."""

from __future__ import annotations

from typing import Any

from benchmarks.peers._form import Form, Loss


def simclr() -> Loss:
    """As SimCLR's authors published it: two products a view, softmax cross-entropy.

    Theirs is the sum of the views' means; half of it is the mean.
    """
    import tensorflow as tf

    def loss(z1: Any, z2: Any, temperature: float) -> Any:
        z1, z2 = tf.math.l2_normalize(z1, -1), tf.math.l2_normalize(z2, -1)
        count = tf.shape(z1)[0]
        labels = tf.one_hot(tf.range(count), 2 * count)
        itself = tf.one_hot(tf.range(count), count) * 1e9
        terms = []
        for own, other in ((z1, z2), (z2, z1)):
            same = tf.matmul(own, own, transpose_b=True) / temperature - itself
            across = tf.matmul(own, other, transpose_b=True) / temperature
            logits = tf.concat([across, same], 1)
            terms.append(tf.nn.softmax_cross_entropy_with_logits(labels, logits))
        return tf.reduce_mean(terms[0] + terms[1]) / 2

    return loss


def ours() -> Loss:
    """`ntxent.tensorflow` as it comes."""
    from ntxent.tensorflow import nt_xent

    return lambda z1, z2, temperature: nt_xent(z1, z2, temperature=temperature)


FORMS = (
    Form("tensorflow", "simclr", "TensorFlow, SimCLR's", simclr, 2000, 10, 17),
    Form("tensorflow", "ntxent", "ntxent, TensorFlow", ours, 4000, 5, ours=True),
    Form("tensorflow", "simclr_xla", "SimCLR's, XLA", simclr, 2000, 10, 17, compiles=True),
    Form("tensorflow", "ntxent_xla", "ntxent, XLA", ours, 2000, 4, compiles=True, ours=True),
)
