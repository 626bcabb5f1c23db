"""The processes of JAX: the devices along axes of a mesh, named as `lax.psum` names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntxent import _spec
from ntxent._checks.arguments import check_exchange


@dataclass(frozen=True)
class JaxAcross:
    """`_protocol.Across`, and how shards are exchanged; known before there are numbers."""

    names: tuple[str, ...]
    exchange: str | None

    @property
    def processes(self) -> int:
        return lax.axis_size(self.names)

    def checked(self, check: Callable[..., None], arguments: Sequence[Any]) -> JaxAcross:
        """One program is traced for all, so that all are refused together."""
        check(*arguments, alone=self.processes == 1)
        return self

    def row_ids(self, rows: Array) -> Array:
        place, count = lax.axis_index(self.names), rows.shape[0]
        return place * count + jnp.arange(count, dtype=place.dtype)

    def mean(self, value: Any) -> Any:
        return lax.pmean(value, self.names)

    def largest(self, value: Array) -> Array:
        """The largest of all processes, without gradient."""
        found: Array = lax.pmax(lax.stop_gradient(value), self.names)
        return found

    def gathered(self, block: Any) -> Any:
        """The arrays of all processes, one after the other."""
        return jax.tree.map(partial(lax.all_gather, axis_name=self.names, tiled=True), block)

    def fold(self, step: Callable[[Any, Any], Any], state: Any, block: Any) -> Any:
        """`state = step(state, block)` over the blocks of all processes, gathered or one by one."""
        if not self.ring(block):
            return step(state, self.gathered(block))
        following = [((i + 1) % self.processes, i) for i in range(self.processes)]

        def body(carry: Any, _: None) -> tuple[Any, None]:
            state, block = carry
            # The next one is on its way while this one is used: neither waits for the other.
            coming = lax.ppermute(block, self.names, following)
            return (step(state, block), coming), None

        (state, last), _ = lax.scan(body, (state, block), length=self.processes - 1)
        return step(state, last)

    def ring(self, block: Any) -> bool:
        """Whether a block is passed on instead of gathered."""
        if self.exchange is not None:
            return self.exchange == "ring"
        held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(block))
        return isinstance(held, int) and self.processes * held > _spec.GATHER_BYTES


def across_of(axis_name: Any, exchange: Any, implementation: str | None) -> JaxAcross | None:
    """The processes that the keywords of the losses name, None for one alone."""
    check_exchange(exchange)
    if axis_name is None:
        if exchange is None:
            return None
        msg = (
            f'exchange="{exchange}" needs processes to exchange rows with; got axis_name=None. '
            "Name the axes of the mesh that the batch is spread over, or leave exchange out."
        )
        raise ValueError(msg)
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    strings = all(isinstance(name, str) for name in names)
    if not (names and strings and len(set(names)) == len(names)):
        msg = (
            "axis_name must be the name of an axis, or a tuple of different names; "
            f"got {type(axis_name).__name__} {axis_name!r}. "
            "Pass what shard_map's mesh or pmap calls the axes that the batch is spread over."
        )
        raise TypeError(msg)
    if implementation == "dense" and exchange == "ring":
        msg = (
            'implementation="dense" holds the rows of all processes; got exchange="ring". '
            'Use exchange="gather", or implementation="tiled".'
        )
        raise ValueError(msg)
    return JaxAcross(names, exchange)
