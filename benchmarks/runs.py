"""A form on a setting, in each library's own way to run a step of forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.cases import Setting
from benchmarks.oracle import views
from benchmarks.peers import Form


class TorchRun:
    """One step is forward, and backward if the setting has it."""

    loss: Callable[..., Any]

    def __init__(self, form: Form, setting: Setting) -> None:
        import torch

        torch.set_num_threads(setting.threads)
        self.loss, self.setting = form.make(), setting
        dtype = getattr(torch, setting.dtype)
        given = [torch.from_numpy(view).to(dtype) for view in views(setting)]
        self.views = [view.requires_grad_(setting.backward) for view in given]
        self.value: Any = None

    def clear(self) -> None:
        """What `optimizer.zero_grad()` does between steps; not timed."""
        self.value = None
        for view in self.views:
            view.grad = None

    def step(self) -> None:
        self.value = self.loss(*self.views, self.setting.temperature)
        if self.setting.backward:
            self.value.backward()

    def result(self) -> tuple[float, list[np.ndarray] | None]:
        if not self.setting.backward:
            return self.value.item(), None
        grads: list[Any] = [view.grad for view in self.views]
        wide = np.float64 if self.setting.dtype == "float64" else np.float32
        return self.value.item(), [grad.double().numpy().astype(wide) for grad in grads]


class NumpyRun:
    """The same where the form itself returns the gradients."""

    loss: Callable[..., Any]
    views: Sequence[Any]
    found: Any = None

    def __init__(self, form: Form, setting: Setting) -> None:
        check_serves(setting)
        self.loss, self.views, self.temperature = form.make(), views(setting), setting.temperature

    def clear(self) -> None:
        self.found = None

    def step(self) -> None:
        self.found = self.loss(*self.views, self.temperature)

    def result(self) -> tuple[float, list[np.ndarray] | None]:
        loss, gradients = self.found
        return float(loss), [np.asarray(gradient) for gradient in gradients]


class JaxRun(NumpyRun):
    """Compiled, and waited for."""

    compiled: Callable[..., Any]
    wait: Callable[[Any], Any]

    def __init__(self, form: Form, setting: Setting) -> None:
        import jax
        import jax.numpy as jnp

        check_serves(setting)
        loss = form.make()
        self.wait = jax.block_until_ready
        self.compiled = jax.jit(
            jax.value_and_grad(lambda z1, z2: loss(z1, z2, setting.temperature), argnums=(0, 1))
        )
        self.views = [jnp.asarray(view) for view in views(setting)]

    def step(self) -> None:
        self.found = self.wait(self.compiled(*self.views))


class TensorflowRun(JaxRun):
    """A `tf.function`, under XLA if the form compiles."""

    def __init__(self, form: Form, setting: Setting) -> None:
        import tensorflow as tf

        check_serves(setting)
        tf.config.threading.set_intra_op_parallelism_threads(setting.threads)
        loss: Callable[..., Any] = form.make()

        @tf.function(jit_compile=form.compiles)
        def step(*views: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(views)
                value = loss(*views, setting.temperature)
            return value, tape.gradient(value, views)

        def wait(found: Any) -> Any:  # what is read is there
            loss, gradients = found
            return loss.numpy(), [gradient.numpy() for gradient in gradients]

        self.compiled, self.wait = step, wait
        self.views = [tf.constant(view) for view in views(setting)]


def check_serves(setting: Setting) -> None:
    """Only PyTorch's runs vary in these; a row must not say that another's did."""
    if setting.dtype != "float32" or not setting.backward:
        msg = f"{setting.library} runs float32, forward and backward; got {setting}"
        raise ValueError(msg)


Run = TorchRun | NumpyRun
RUNS: dict[str, type[Run]] = {
    "torch": TorchRun,
    "numpy": NumpyRun,
    "jax": JaxRun,
    "tensorflow": TensorflowRun,
}
