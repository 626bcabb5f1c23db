"""A form on given views, in each library's own way to run a step of forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.peers import Form


class TorchRun:
    """A form on given views: one step is forward and backward."""

    def __init__(self, form: Form, views: Sequence[np.ndarray], temperature: float) -> None:
        import torch

        self.loss, self.temperature = form.make(), temperature
        self.views = [torch.from_numpy(view).requires_grad_() for view in views]
        self.value: Any = None

    def clear(self) -> None:
        """What `optimizer.zero_grad()` does between steps; not timed."""
        self.value = None
        for view in self.views:
            view.grad = None

    def step(self) -> None:
        self.value = self.loss(*self.views, self.temperature)
        self.value.backward()

    def result(self) -> tuple[float, list[np.ndarray]]:
        return self.value.item(), [view.grad.numpy() for view in self.views]


class NumpyRun:
    """The same where the form itself returns the gradients."""

    def __init__(self, form: Form, views: Sequence[np.ndarray], temperature: float) -> None:
        self.loss, self.views, self.temperature = form.make(), views, temperature
        self.found: Any = None

    def clear(self) -> None:
        self.found = None

    def step(self) -> None:
        self.found = self.loss(*self.views, self.temperature)

    def result(self) -> tuple[float, list[np.ndarray]]:
        loss, gradients = self.found
        return float(loss), list(gradients)


class JaxRun:
    """Compiled, and waited for."""

    def __init__(self, form: Form, views: Sequence[np.ndarray], temperature: float) -> None:
        import jax
        import jax.numpy as jnp

        loss, self.wait = form.make(), jax.block_until_ready
        self.compiled = jax.jit(
            jax.value_and_grad(lambda z1, z2: loss(z1, z2, temperature), argnums=(0, 1))
        )
        self.views = [jnp.asarray(view) for view in views]
        self.found: Any = None

    def clear(self) -> None:
        self.found = None

    def step(self) -> None:
        self.found = self.wait(self.compiled(*self.views))

    def result(self) -> tuple[float, list[np.ndarray]]:
        loss, gradients = self.found
        return float(loss), [np.asarray(gradient) for gradient in gradients]


class TensorflowRun(JaxRun):
    """A `tf.function`, under XLA where the form's name says so."""

    def __init__(self, form: Form, views: Sequence[np.ndarray], temperature: float) -> None:
        import tensorflow as tf

        loss = form.make()

        @tf.function(jit_compile=form.name.endswith("xla"))
        def step(*views: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(views)
                value = loss(*views, temperature)
            return value, tape.gradient(value, views)

        def wait(found: Any) -> Any:  # what is read is there
            loss, gradients = found
            return loss.numpy(), [gradient.numpy() for gradient in gradients]

        self.compiled, self.wait = step, wait
        self.views = [tf.constant(view) for view in views]
        self.found: Any = None


Run = TorchRun | NumpyRun | JaxRun
RUNS: dict[str, type[Run]] = {
    "torch": TorchRun,
    "numpy": NumpyRun,
    "jax": JaxRun,
    "tensorflow": TensorflowRun,
}
