"""The demo's encoder in TensorFlow: a Keras model, Keras' Adam and a compiled step."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from _digits import SIDE, Array
from _digits_network import BODY

from ntxent.tensorflow import nt_xent


class Encoder:
    """A `Sequential` body and a kernel for the head."""

    def __init__(self, kernels: list[Array], temperature: float) -> None:
        layers = [
            keras.layers.Conv2D(
                layer.channels, layer.side, layer.stride, "same", activation="relu", use_bias=False
            )
            for layer in BODY
        ]
        self.body = keras.Sequential(
            [keras.Input((SIDE, SIDE, 1)), *layers, keras.layers.Flatten()]
        )
        self.body.set_weights(kernels[:-1])
        self.head = tf.Variable(kernels[-1])
        self.optimizer = keras.optimizers.Adam(epsilon=1e-8)
        self.temperature = temperature
        self.updated = tf.function(self._updated, jit_compile=True)

    def step(self, views: Array, rate: float) -> float:
        """One step of Adam."""
        self.optimizer.learning_rate = rate
        return float(self.updated(tf.constant(views[..., None])))

    def _updated(self, views: tf.Tensor) -> tf.Tensor:
        weights = [*self.body.trainable_variables, self.head]
        with tf.GradientTape() as tape:
            z1, z2 = tf.split(self.body(views) @ self.head, 2)
            loss = nt_xent(z1, z2, temperature=self.temperature)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    def features(self, images: Array) -> Array:
        """What the probe sees."""
        return np.asarray(self.body(images[..., None]))

    def projections(self, images: Array) -> Array:
        """What the loss compares."""
        return self.features(images) @ self.head.numpy()
