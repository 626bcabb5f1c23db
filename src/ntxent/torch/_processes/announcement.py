"""What a process tells the others of its call, before they exchange rows.

One message of a fixed size: how many rows, what the call is like, and why it was refused if it was.
Without it, processes whose calls differ would wait for each other until the group's timeout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

BYTES = 2048


class Card(NamedTuple):
    """One process's call. Texts may be cut; their digests tell whether the whole is the same."""

    sizes: str
    digest: str
    call: str
    refusal: str


def written(told: dict[str, Any], error: Exception | None) -> Tensor:
    """The card as bytes."""
    sizes = [str(x.shape[0]) for value in told.values() for x in flat(value) if x.dim()]
    # options before arrays, of which there may be many
    names = sorted(told, key=lambda name: bool(flat(told[name])))
    call = ", ".join(f"{name}={like(told[name])}" for name in names)
    call = f"{call}, gradients {'on' if torch.is_grad_enabled() else 'off'}"
    refusal = "" if error is None else f"{type(error).__name__}: {error}"
    card = Card(digest(" ".join(sizes)), digest(call), call, refusal)
    text = "\n".join(line.replace("\n", " ")[: BYTES // 3] for line in card)
    encoded = bytearray(text.encode("utf-8", "replace")[:BYTES])
    found = torch.zeros(BYTES, dtype=torch.uint8)
    found[: len(encoded)] = torch.frombuffer(encoded, dtype=torch.uint8)
    return found


def digest(text: str) -> str:
    """A short text that is another for another text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def flat(value: Any) -> list[Tensor]:
    """The tensors in an argument."""
    many = value if isinstance(value, (tuple, list)) else [value]
    return [x for x in many if isinstance(x, Tensor)]


def like(value: Any) -> str:
    """What must be the same everywhere: all but numbers of rows, and what is in tensors."""
    if isinstance(value, Tensor):
        shape = ", ".join(["N", *map(str, value.shape[1:])]) if value.dim() else ""
        grad = ", requires_grad" if value.requires_grad else ""
        return f"{str(value.dtype).removeprefix('torch.')} ({shape}){grad}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(like, value))}]"
    return repr(value)[:100]


def read(cards: Tensor) -> list[Card]:
    """Those of all processes."""
    texts = [bytes(x.tolist()).rstrip(b"\0").decode("utf-8", "replace") for x in cards]
    return [Card(*text.split("\n", 3)) for text in texts]


def compared(cards: Sequence[Card]) -> bool:
    """Whether all have as many rows; refused if a process refused, or calls are unlike."""
    for number, card in enumerate(cards):
        if card.refusal:
            msg = (
                f"process {number} of {len(cards)} refused its shard, and so all do. "
                f"It said: {card.refusal}"
            )
            raise RuntimeError(msg)
    for number, card in enumerate(cards):
        if card.digest != cards[0].digest:
            msg = (
                "all processes must make the same call, with shards that differ in their number of "
                f"rows alone; got {cards[0].call} on process 0 and {card.call} on process {number}."
            )
            raise ValueError(msg)
    return all(card.sizes == cards[0].sizes for card in cards)
