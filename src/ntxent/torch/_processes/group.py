"""What the processes of a group send each other, by `torch.distributed` alone.

A `Group` is nothing but names and numbers, so that an operator can take it and a tracer carry it.
Its collectives run inside of operators (`_transforms/operators.py`), where no tracer looks; what an
operator is given and gives is this process's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist
from torch import Tensor

from ntxent import _spec

# A ring's pieces: large enough for tiles of 512 rows and for a network, small beside a shard.
PIECE_BYTES = 8 * 2**20
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

Shard = tuple[Tensor, ...]


class Group(NamedTuple):
    """The processes of a group, and what they send each other."""

    group: str  # its name in torch.distributed
    exchange: str | None
    processes: int
    rank: int
    even: bool = False  # whether all are known to have as many rows

    @classmethod
    def named(cls, group: str, *rest: Any) -> Self | None:
        """From the same fields, none without a name: as operators take them."""
        return cls(group, *rest) if group else None

    @property
    def handle(self) -> dist.ProcessGroup:
        """The group itself."""
        resolve: Any = getattr(dist.distributed_c10d, "_resolve_process_group")  # noqa: B009
        found: dist.ProcessGroup = resolve(self.group)
        return found

    def row_ids(self, rows: Tensor) -> Tensor:
        """Numbers that no row of another process has."""
        return torch.arange(rows.shape[0], device=rows.device) + self.rank * 2**40

    def all_gathered(self, tensor: Tensor, near: Tensor | None = None) -> Tensor:
        """A small tensor of one shape from everywhere, (processes, ...).

        By the CPU if the group has a backend for it, so as not to wait for a GPU; else where the
        rows are.
        """
        by_cpu = "cpu" in dist.get_backend_config(self.handle)
        place = torch.device("cpu") if by_cpu else (tensor if near is None else near).device
        if not by_cpu and place.type == "cpu":
            place = torch.device("cuda", torch.cuda.current_device())
        own = tensor.to(place)
        found = own.new_empty(self.processes, *own.shape)
        all_gather(found.flatten(0, 1), own, group=self.handle)
        return found.cpu()

    def sizes(self, rows: Tensor) -> list[int]:
        """How many rows each process has; all must be alike otherwise."""
        if self.even:
            return [rows.shape[0]] * self.processes
        kind = DTYPES.index(rows.dtype) if rows.dtype in DTYPES else -1
        own = torch.tensor([rows.shape[0], kind, *rows.shape[1:]])
        told: list[list[int]] = self.all_gathered(own, rows).tolist()
        if any(other[1:] != told[0][1:] for other in told):
            msg = (
                "the shards of all processes must have one dtype and rows of one length; got "
                + ", ".join(f"{other[2:]} of {DTYPES[other[1]]}" for other in told)
            )
            raise ValueError(msg)
        return [other[0] for other in told]

    def shards(self, *tensors: Tensor) -> Iterator[tuple[bool, Shard]]:
        """(Whether it is this process's, its tensors) for each process, this one first.

        The others follow in the order in which a ring brings them, in the same pieces, so that both
        ways of exchange give the same bits. What is yielded is worked on while the next is on its
        way.
        """
        if self.processes == 1:
            yield True, tensors
            return
        sizes = self.sizes(tensors[0])
        tensors = tuple(x.contiguous() for x in tensors)
        yield from (self.gather if self.gathers(tensors, sizes) else self.ring)(tensors, sizes)

    def gathers(self, tensors: Shard, sizes: Sequence[int]) -> bool:
        """Whether to gather; the same on all processes."""
        if self.exchange is not None:
            return self.exchange == "gather"
        return self.processes * max(sizes) * row_bytes(tensors) <= _spec.GATHER_BYTES

    def everyone(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in their order."""
        if self.processes == 1:
            return rows.clone()
        sizes = self.sizes(rows)
        longest = max(sizes)
        found = rows.new_empty(self.processes * longest, *rows.shape[1:])
        all_gather(found, grown(rows.contiguous(), longest), group=self.handle)
        shards = zip(found.split(longest), sizes, strict=True)
        return torch.cat([shard[:size] for shard, size in shards])

    def gather(self, tensors: Shard, sizes: Sequence[int]) -> Iterator[tuple[bool, Shard]]:
        """All at once: n d numbers on each process."""
        longest = max(sizes)
        padded = [grown(x, longest) for x in tensors]
        found = [x.new_empty(self.processes * longest, *x.shape[1:]) for x in padded]
        works = [
            all_gather(out, x, group=self.handle, async_op=True)
            for out, x in zip(found, padded, strict=True)
        ]
        yield True, tensors
        for work in works:
            work.wait()
        pieces = pieces_of(tensors, sizes)
        for piece, step in itertools.product(range(pieces), range(1, self.processes)):
            place = (self.rank - step) % self.processes
            begin = place * longest
            shard = cut(tuple(x[begin : begin + sizes[place]] for x in found), piece, pieces)
            if len(shard[0]):
                yield False, shard

    def ring(self, tensors: Shard, sizes: Sequence[int]) -> Iterator[tuple[bool, Shard]]:
        """A piece of every shard after the other, each passed on while it is worked on.

        Two pieces are on a process at a time: the one at work, and the one that comes.
        """
        handle = self.handle
        before, after = (
            dist.get_global_rank(handle, (self.rank + step) % self.processes) for step in (-1, 1)
        )
        pieces = pieces_of(tensors, sizes)
        own, current = True, tensors
        for piece in range(pieces):
            held = cut(tensors, piece, pieces)
            for step in range(1, self.processes):
                size = sizes[(self.rank - step) % self.processes]
                begin, end = bounds(size, piece, pieces)
                coming = tuple(x.new_empty(end - begin, *x.shape[1:]) for x in held)
                works = exchanged(held, after, coming, before, handle)
                if len(current[0]):
                    yield own, current
                for work in works:
                    work.wait()
                own, current, held = False, coming, coming
        if len(current[0]):
            yield own, current


def all_gather(found: Tensor, own: Tensor, **options: Any) -> Any:
    """Into one tensor; by its name from PyTorch 2.13 on, where the other is deprecated."""
    gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    return gather(found, own, **options)


def row_bytes(tensors: Shard) -> int:
    """What a row takes on the wire."""
    return sum(x[0].nbytes for x in tensors)


def pieces_of(tensors: Shard, sizes: Sequence[int]) -> int:
    """Into how many pieces each shard is cut."""
    return max(1, math.ceil(max(sizes) * row_bytes(tensors) / PIECE_BYTES))


def cut(tensors: Shard, piece: int, pieces: int) -> Shard:
    """One of so many pieces."""
    begin, end = bounds(len(tensors[0]), piece, pieces)
    return tuple(x[begin:end] for x in tensors)


def bounds(size: int, piece: int, pieces: int) -> tuple[int, int]:
    """Where a piece begins and ends: nearly equal, the first never empty.

    NCCL wants all processes in a group's first messages.
    """
    return -(-size * piece // pieces), -(-size * (piece + 1) // pieces)


def exchanged(
    held: Shard, after: int, coming: Shard, before: int, group: dist.ProcessGroup
) -> list[Any]:
    """Both ways at once; nothing is said of no rows."""
    messages = [dist.P2POp(dist.isend, x, after, group) for x in held if len(x)]
    messages += [dist.P2POp(dist.irecv, x, before, group) for x in coming if len(x)]
    return dist.batch_isend_irecv(messages) if messages else []


ALONE = Group("", None, 1, 0, True)


def grown(rows: Tensor, size: int) -> Tensor:
    """With zeros below, up to so many rows: collectives take one shape."""
    missing = size - rows.shape[0]
    return rows if not missing else torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:])))
