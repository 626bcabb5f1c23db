"""What has reverse mode alone refuses forward mode in words that say what to write.

`custom_vjp` refuses it too, but can't be told how: its error comes when the tangents are computed,
which under `jit` and `linearize` is long after the loss has returned. So the arrays pass through
an operation that changes nothing, and whose tangents can be transposed but not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

REFUSAL = (
    'implementation="tiled", which is what None means, has no forward-mode differentiation alone '
    '(jvp, jacfwd, linearize, or grad of jvp). Pass implementation="dense", which has it, or '
    "differentiate in reverse: grad, vjp, jacrev, and jvp of grad."
)

passed = Primitive("ntxent_reverse_mode")
tangent = Primitive("ntxent_reverse_mode_tangent")
passed.multiple_results = True


def reverse_only(*arrays: Any) -> Sequence[Any]:
    """The arrays, of which forward mode is refused; None stays None."""
    found = iter(passed.bind(*(x for x in arrays if x is not None)))
    return [None if x is None else next(found) for x in arrays]


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(REFUSAL)


def _tangents(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """Of the arrays themselves; what doesn't vary stays a symbolic zero."""
    pairs = zip(primals, tangents, strict=True)
    return primals, [t if isinstance(t, ad.Zero) else tangent.bind(t, x) for x, t in pairs]


passed.def_impl(lambda *arrays: list(arrays))
passed.def_abstract_eval(lambda *kinds: list(kinds))
mlir.register_lowering(passed, lambda _, *values: values)
batching.primitive_batchers[passed] = lambda arrays, axes: (passed.bind(*arrays), axes)
ad.primitive_jvps[passed] = _tangents

# Of the array too, though it leaves it alone: what differentiates a tangent comes through here.
tangent.def_impl(_refuse)
tangent.def_abstract_eval(lambda kind, _: kind)
mlir.register_lowering(tangent, _refuse)
batching.primitive_batchers[tangent] = _refuse
ad.primitive_jvps[tangent] = _refuse
ad.primitive_transposes[tangent] = lambda cotangent, *_: [cotangent, None]
