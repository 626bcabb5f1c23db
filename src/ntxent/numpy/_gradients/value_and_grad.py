"""Closed-form gradients for NumPy."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from ntxent.numpy._gradients.tape import Tape, Traced
from ntxent.numpy._operations.backend import OPS, native
from ntxent.numpy._pairs.tiled import Array


def value_and_grad(fn: Callable[..., Any]) -> Callable[..., tuple[Any, tuple[Array, ...]]]:
    """A function that returns the loss and its gradients with respect to all its float arrays.

    Parameters
    ----------
    fn : callable
        A loss of this module, or a function of such losses and of `+ - * /` that returns a scalar.

    Returns
    -------
    callable
        Called as `fn` is, it returns ``(loss, gradients)``: one gradient, of the argument's shape
        and dtype (in this machine's byte order), for every floating `numpy.ndarray` among the
        arguments, positional ones first, then those by keyword (a temperature given as an array,
        for instance). Numbers, integer arrays and anything else are passed on.

    Raises
    ------
    TypeError
        If `fn` does anything else with its arrays or a loss, and for a list, tuple or dict with
        float arrays in it, whose gradients would be left out.
    ValueError
        If `fn` returns anything but a scalar (call it with ``reduction="mean"`` or ``"sum"``), or
        if no argument is a float array.

    Notes
    -----
    The gradient is the closed form, no finite difference: with the weights P of the log-sum-exp,
    ``dz_i = (1/tau) sum_k (g_i P_ik + g_k P_ki) z_k``, then through the normalisation
    ``dx = (dz - (dz . z) z) / |x|`` (docs/formula.md). Memory O(N d + tile^2) and time
    4 n^2 d flops in all when tiled; a few n x n matrices with ``implementation="dense"``.

    Examples
    --------
    >>> import numpy as np
    >>> from ntxent.numpy import nt_xent, value_and_grad
    >>> z1, z2 = np.eye(2), np.array([[2.0, 1.0], [0.0, 3.0]])
    >>> loss, (g1, g2) = value_and_grad(nt_xent)(z1, z2, temperature=0.5)
    >>> g1.shape, g2.shape
    ((2, 2), (2, 2))
    """

    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, tuple[Array, ...]]:
        tape = Tape()
        watched: list[Traced] = []

        def watch(x: Any) -> Any:
            if not (OPS.accepts(x) and x.dtype.kind == "f"):
                refuse_hidden_arrays(x)
                return x
            watched.append(tape.watch(native(x)))
            return watched[-1]

        with np.errstate(all="ignore"):
            arrays = [watch(x) for x in args]
            found = fn(*arrays, **{name: watch(x) for name, x in kwargs.items()})
            if not watched:
                msg = "value_and_grad needs a float array to differentiate by; got none."
                raise ValueError(msg)
            value = found.value if type(found) is Traced else found
            array = isinstance(value, np.ndarray)
            scalar = value.shape == () if array else isinstance(value, Real)
            if not scalar or isinstance(value, bool):
                shape = f" of shape {value.shape}" if array else ""
                msg = (
                    f"value_and_grad needs a scalar loss; got {type(value).__name__}{shape}. "
                    'Return a loss with reduction="mean" or "sum".'
                )
                raise ValueError(msg)
            if type(found) is not Traced:  # nothing of it depends on an array
                return found, tuple(np.zeros_like(x.value) for x in watched)
            one = np.ones((), found.dtype)[()]
            grads = tape.gradients(found.place, one, [x.place for x in watched])
        return found.value, tuple(
            np.zeros_like(x.value) if grad is None else np.asarray(grad)
            for x, grad in zip(watched, grads, strict=True)
        )

    return wrapped


def refuse_hidden_arrays(argument: Any) -> None:
    """Refuse a container with float arrays in it: they would have no gradient, without a word."""
    if holds_floats(argument):
        msg = (
            f"value_and_grad sees arrays that are arguments of their own; got a "
            f"{type(argument).__name__} with float arrays in it. Pass them one by one, and put "
            "them together in the function: value_and_grad(lambda z1, z2: fn([z1, z2]))(z1, z2)."
        )
        raise TypeError(msg)


def holds_floats(argument: Any) -> bool:
    """Whether a list, tuple or dict, or one in it, has a float array."""
    parts = argument.values() if isinstance(argument, dict) else argument
    return isinstance(argument, dict | list | tuple) and any(
        holds_floats(x) or (isinstance(x, np.ndarray) and x.dtype.kind == "f") for x in parts
    )
