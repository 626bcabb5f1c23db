"""The `Ops` of JAX: plain jax.numpy, which JAX differentiates, and the hot operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, dtypes, lax

from ntxent._checks.arguments import is_number
from ntxent._checks.messages import Lines
from ntxent._labels import Classes, classes
from ntxent._spec import Options
from ntxent.jax import _arguments
from ntxent.jax._pairs.logsumexp import IMPLEMENTATIONS, pair_logsumexp
from ntxent.jax._pairs.tiles import alike, product
from ntxent.jax._processes.mesh import JaxAcross


class JaxOps:
    """`_protocol.Ops` for jax.Array, traced or not."""

    BACKEND = "jax"
    ARRAY_NAME = "jax.Array"
    FLOATS = _arguments.FLOATS
    INTEGERS = _arguments.INTEGERS
    IMPLEMENTATIONS = IMPLEMENTATIONS
    LINES = Lines(
        row="z.reshape(len(z), -1)",
        views="z.swapaxes(0, 1)",
        rows="z.reshape(-1, z.shape[-1])",
        labels="jax.numpy.repeat(labels, {})",
    )
    pair_logsumexp = staticmethod(pair_logsumexp)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, Array) or _arguments.is_numpy(value)

    def odd(self, value: Any) -> str | None:
        return "a sparse one. Pass its todense()." if hasattr(value, "todense") else None

    def device(self, array: Array) -> None:
        """Nothing: a traced array has no device, and JAX itself refuses to mix devices."""

    def number(self, temperature: Array) -> None:
        """Nothing: an array's value isn't checked, as it may be traced or still being computed."""

    def choose(self, device: Any) -> str:
        """What `implementation=None` means."""
        del device
        return "tiled"

    def devices(self) -> list[str]:
        """The devices of this machine."""
        return [str(device) for device in jax.devices()]

    def evaluate(
        self,
        loss: Callable[[Any, Sequence[Array], Any], Array],
        closed: Any,
        arrays: Sequence[Array],
        options: Options,
    ) -> Array:
        """The loss itself: JAX transforms what it is made of."""
        del closed
        exchange = None if options.across is None else options.across.exchange
        chosen = _arguments.check_known_sizes(arrays, options.implementation, exchange)
        return loss(self, arrays, options._replace(implementation=chosen or self.choose(None)))

    def count(self, rows: Array) -> int:
        return rows.shape[0]

    def stack(self, *arrays: Array) -> Array:
        rows = jnp.concatenate(arrays)
        return rows if rows.dtype == jnp.float64 else rows.astype(jnp.float32)

    def stack_unit(self, *arrays: Array) -> Array:
        found: Array = unit_rows(self.stack(*arrays))
        return found

    def inverse(self, temperature: Any, like: Array) -> Any:
        if is_number(temperature):
            return 1 / float(temperature)
        wide = temperature.astype(like.dtype).reshape(())
        # The value may be unknown yet: NaN says what a check can't, in the gradient too.
        return jnp.where((wide > 0) & (wide < math.inf), 1, math.nan) / wide

    def repeat(self, ids: Array, times: int) -> Array:
        return jnp.tile(ids, times)

    def known(self, ids: Array) -> list[int] | None:
        if isinstance(ids, jax.core.Tracer):
            return None
        found: list[int] = np.asarray(ids).tolist()
        return found

    def one_id(self, rows: Array, value: int) -> Array:
        return jnp.full(rows.shape[0], value)

    def classes(self, labels: Array, across: Any) -> Classes:
        every = labels if across is None else across.gathered(labels)
        index = None if across is None else across.row_ids(labels)
        number = lambda found: found.astype(float)  # noqa: E731
        return classes(jnp, labels, jnp.sort(every), number, index, search)

    def positive_means(self, rows: Array, classes: Classes, across: Any) -> Array:
        """In heads and tails, so that a row can be taken off the sum: off by 2^-35 of the largest.

        In float32 alone it would be 2^-24, which for one long row among short ones is too much.
        """
        largest = lax.stop_gradient(jnp.abs(rows).max())
        power = power_of_two(largest if across is None else across.largest(largest))
        scaled = rows * (1 / power)
        sums = class_sums(scaled, classes.groups, across)
        found = [total - part for total, part in zip(sums, split(scaled), strict=True)]
        divisor = jnp.maximum(classes.others, 1).astype(rows.dtype)
        return (found[0] + found[1]) * power / divisor[:, None]

    def partner_logits(self, rows: Array, partners: Array | int, scale: Any) -> Array:
        head, tail = logits(rows, partner_rows(rows, partners), scale)
        found: Array = head + tail
        return found

    def contrast(self, lse: Array, positive: Array) -> Array:
        return self.softplus(lse - positive)

    def partner_contrast(
        self,
        lse: Array,
        rows: Array,
        partners: Array | int,
        scale: Any,
        within: Array | None = None,
    ) -> Array:
        head, tail = logits(rows, partner_rows(rows, partners), scale)
        x = (lse - head) - tail
        if within is None:
            return self.softplus(x)
        # Counts multiply it, which `classes` made without knowing rows: no promotion shall choose.
        wide = np.promote_types(x.dtype, dtypes.canonicalize_dtype(float))
        return jnp.where(within, x, self.softplus(x)).astype(wide)

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)) to the last digit."""
        return jnp.logaddexp(x, 0)

    def logaddexp(self, a: Array, b: Array) -> Array:
        nothing = (a == -math.inf) & (b == -math.inf)  # no derivative, which would be NaN
        found = jnp.logaddexp(jnp.where(nothing, 0, a), b)
        return jnp.where(nothing, -math.inf, found)

    def own_logsumexp(self, queries: Array, keys: Array, scale: Any) -> Array:
        dots = product(keys, queries[:, :, None])[:, :, 0]
        return jax.nn.logsumexp(dots * scale, 1)

    def half(self, x: Array, index: int) -> Array:
        return jnp.split(x, 2)[index]

    def or_one(self, count: Array) -> Array:
        return jnp.where(count == 0, 1, count)

    def reduce(self, rows: Array, reduction: str, dtype: Any) -> Array:
        if reduction == "none":
            return rows.astype(dtype)
        return (rows.mean() if reduction == "mean" else rows.sum()).astype(dtype)


OPS = JaxOps()


# Outside jit each operation costs more than its numbers, so what is made of many is compiled:
# loss and gradient of N = 64 then take 5 ms instead of 15.


@jax.jit
def unit_rows(rows: Array) -> Array:
    """Each row divided by its length: by a rounded one first, then by what that has left.

    A length that is rounded would be off for a whole row alike, and its similarities by up to
    an epsilon, which does not average out (docs/numerics.md).
    """
    # The largest entry becomes about 1, exactly: squares stay in range.
    largest = lax.stop_gradient(jnp.abs(rows).max(-1, keepdims=True))
    rows = rows * (1 / power_of_two(largest))
    squares = (rows * rows).sum(-1, keepdims=True)
    # 1 / sqrt(inf) = 0 and has the derivative 0: a zero row stays zero.
    unit = rows * lax.rsqrt(jnp.where(squares == 0, math.inf, squares))
    head, tail = dots(lax.stop_gradient(unit), lax.stop_gradient(unit))
    excess = jnp.where(head == 0, 0, (head - 1) + tail)[..., None]
    return unit - unit * (excess / 2)


# The error of a float32 dot product, divided by tau, would be the largest error of the loss
# (docs/numerics.md), and float64 is switched off unless the user asks for it. So numbers are split
# into a head with few digits and a tail: heads multiply and add up without error.


def power_of_two(x: Array) -> Array:
    """That nearest to x, if neither it nor its inverse is subnormal: XLA takes those for 0.

    JAX's ldexp is made of pow: with frexp it took 22 of the 112 microseconds of loss and gradient
    at N = 32.
    """
    dtype: Any = jnp.finfo(x.dtype)  # type: ignore[no-untyped-call]
    inside = jnp.clip(x, 2.0**dtype.minexp, 2.0 ** (dtype.maxexp - 2))
    rounded: Array = lax.reduce_precision(inside, dtype.nexp, 0)
    return rounded


@jax.jit
def logits(a: Array, b: Array, scale: Any) -> tuple[Array, Array]:
    """`scale` times the dot product of each row of `a` with that of `b`, as head and tail."""
    head, tail = dots(a, b)
    if a.dtype == jnp.float64:
        return head * scale, tail
    scale = jnp.asarray(scale, a.dtype)
    mantissa, exponent = jnp.frexp(scale)
    scale_head = jnp.ldexp(split(mantissa)[0], exponent)
    coarse, fine = split(head)
    return scale_head * coarse, scale_head * fine + (scale - scale_head) * head + scale * tail


def dots(a: Array, b: Array) -> tuple[Array, Array]:
    """The dot product of each row of `a` with the same row of `b`, as head and tail.

    Products of two heads are multiples of 2^-22 and, for rows of length 1, their sums at most 1:
    exact in float32, in whatever order. The rest is 2^-11 as large, and so is its error.
    """
    if a.dtype == jnp.float64:
        found = (a * b).sum(-1)
        return found, jnp.zeros_like(found)
    (a_head, a_tail), (b_head, b_tail) = split(a), split(b)
    return (a_head * b_head).sum(-1), (a_head * b_tail + a_tail * b).sum(-1)


def class_sums(rows: Array, groups: Array, across: JaxAcross | None) -> list[Array]:
    """The sum of the rows of each row's class, in all processes: of heads, and of tails."""
    size = rows.shape[0]
    if across is None:
        return [jax.ops.segment_sum(part, groups, size)[groups] for part in split(rows)]
    rows, groups, _ = alike(rows, groups, across.row_ids(rows))
    # A class is where its group comes first among the own: n numbers, not one for each of all rows.
    own = jnp.sort(groups)

    def step(sums: list[Array], block: tuple[Array, Array]) -> list[Array]:
        theirs, of = block
        place = search(own, of)
        place = jnp.where(own.at[place].get(mode="clip") == of, place, size)  # or with no sum
        found = [jax.ops.segment_sum(part, place, size) for part in split(theirs)]
        return [a + b for a, b in zip(sums, found, strict=True)]

    zeros = [jnp.zeros_like(rows)] * 2
    sums: list[Array] = across.fold(step, zeros, (rows, groups))
    return [part[search(own, groups)] for part in sums]


def search(ordered: Array, values: Array, side: str = "left") -> Array:
    """`searchsorted`; of sizes that are symbolic, which it refuses, by comparing all with all."""
    if isinstance(ordered.shape[0], int):
        return jnp.searchsorted(ordered, values, side=side)
    before = jnp.less if side == "left" else jnp.less_equal
    return before(ordered[None], values[:, None]).sum(1)


def partner_rows(rows: Array, partners: Array | int) -> Array:
    """The partners, or the rows that are so many rows further on."""
    return partners if isinstance(partners, Array) else jnp.roll(rows, -partners, 0)


def split(x: Array) -> tuple[Array, Array]:
    """A multiple of 2^-11, and what it lacks; numbers from 2 on, not of unit rows, stay whole.

    The head is a constant to derivatives, which are those of the tail: nothing is kept for them.
    """
    head = lax.stop_gradient(jnp.where(jnp.abs(x) < 2, jnp.round(x * 2**11) / 2**11, x))
    return head, x - head
