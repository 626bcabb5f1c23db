"""A batch over many processes: what they tell each other, by `torch.distributed` alone.

`Processes` is `_protocol.Across` and nothing but names and numbers, so that an operator can take it
and a tracer carry it. Its collectives run inside of operators (`_operators.py`), where no tracer
looks; what an operator is given and gives is this process's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist
from torch import Tensor

from ntxent import _checks
from ntxent.torch import _card

EXCHANGES = ("gather", "ring")
# Rows of all processes up to this many bytes are gathered: one collective, not a message for each
# shard, and no more memory than the tiles of a batch take on a GPU.
GATHER_BYTES = 256 * 2**20
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

resolved: Any = getattr(dist.distributed_c10d, "_resolve_process_group")  # noqa: B009
# The first is its name from PyTorch 2.13 on, where the second is deprecated.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

Shard = tuple[Tensor, ...]


class Processes(NamedTuple):
    """The processes of a group."""

    group: str  # its name in torch.distributed
    exchange: str | None
    processes: int
    rank: int
    even: bool = False  # whether all are known to have as many rows

    @classmethod
    def of(cls, group: Any, exchange: str | None) -> Self | None:
        """From what the user passes: None, True or a process group."""
        if exchange is not None and exchange not in EXCHANGES:
            _checks.refuse_choice("exchange", exchange, EXCHANGES)
        if group is None or group is False:
            if exchange is not None:
                msg = f"exchange={exchange!r} needs a group; pass group=True or a process group."
                raise ValueError(msg)
            return None
        if not (dist.is_available() and dist.is_initialized()):
            msg = (
                "group needs torch.distributed, which isn't initialized; call "
                "torch.distributed.init_process_group() first, or leave group out."
            )
            raise RuntimeError(msg)
        group = dist.group.WORLD if group is True else group
        if not isinstance(group, dist.ProcessGroup):
            msg = (
                "group must be True or a torch.distributed.ProcessGroup that this process is in; "
                f"got {type(group).__name__} {group!r}."
            )
            raise TypeError(msg)
        return cls(group.group_name, exchange, group.size(), group.rank())

    @property
    def handle(self) -> dist.ProcessGroup:
        """The group itself."""
        found: dist.ProcessGroup = resolved(self.group)
        return found

    def checked(self, check: Callable[..., None], arguments: Sequence[Any]) -> Self:
        """Run a check and compare the calls; what one process refuses, all refuse."""
        alone = self.processes == 1
        if alone or torch.compiler.is_compiling():  # then sizes are compared when it runs
            check(*arguments, alone=alone)
            return self._replace(even=alone)
        error = None
        try:
            check(*arguments, alone=False)
        except (TypeError, ValueError) as found:
            error = found
        cards = _card.read(self.all_gathered(_card.written(check, arguments, error)))
        if error is not None:
            raise error
        return self._replace(even=_card.compared(cards))

    def row_ids(self, rows: Tensor) -> Tensor:
        """Numbers that no row of another process has."""
        return torch.arange(rows.shape[0], device=rows.device) + self.rank * 2**40

    def mean(self, value: Any) -> Any:
        """Over the processes, without gradient."""
        from ntxent.torch import _operators

        if not isinstance(value, Tensor):
            if self.even:
                return value
            value = torch.full((), value, dtype=torch.float64, device=self.speaking_device())
        return _operators.process_mean(value.detach(), *self)

    def speaking_device(self) -> torch.device:
        """Where small tensors are exchanged: a CPU if the group has one, not to wait for a GPU."""
        if "cpu" in dist.get_backend_config(self.handle):
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    def all_gathered(self, tensor: Tensor) -> Tensor:
        """A small tensor of one shape from everywhere, (processes, ...)."""
        own = tensor.to(self.speaking_device())
        found = own.new_empty(self.processes, *own.shape)
        all_gather(found.flatten(0, 1), own, group=self.handle)
        return found.cpu()

    def sizes(self, rows: Tensor) -> list[int]:
        """How many rows each process has; all must be alike otherwise."""
        if self.even:
            return [rows.shape[0]] * self.processes
        kind = DTYPES.index(rows.dtype) if rows.dtype in DTYPES else -1
        own = torch.tensor([rows.shape[0], kind, *rows.shape[1:]])
        told: list[list[int]] = self.all_gathered(own).tolist()
        if any(other[1:] != told[0][1:] for other in told):
            msg = (
                "the shards of all processes must have one dtype and rows of one length; got "
                + ", ".join(f"{other[2:]} of {DTYPES[other[1]]}" for other in told)
            )
            raise ValueError(msg)
        return [other[0] for other in told]

    def shards(self, *tensors: Tensor) -> Iterator[tuple[bool, Shard]]:
        """(Whether it is this process's, its tensors) for each process, this one first.

        The others follow in the order in which a ring brings them, so that both ways of exchange
        give the same bits. What is yielded is worked on while the next is on its way.
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
        a_row = sum(x[:1].nbytes for x in tensors) if sizes[self.rank] else 0
        return sum(sizes) * a_row <= GATHER_BYTES

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
        for step in range(1, self.processes):
            place = (self.rank - step) % self.processes
            begin = place * longest
            yield False, tuple(x[begin : begin + sizes[place]] for x in found)

    def ring(self, tensors: Shard, sizes: Sequence[int]) -> Iterator[tuple[bool, Shard]]:
        """One after the other, each passed on while it is worked on."""
        handle = self.handle
        before, after = (
            dist.get_global_rank(handle, (self.rank + step) % self.processes) for step in (-1, 1)
        )
        held = tensors
        for step in range(1, self.processes):
            size = sizes[(self.rank - step) % self.processes]
            coming = tuple(x.new_empty(size, *x.shape[1:]) for x in held)
            works = dist.batch_isend_irecv(
                [dist.P2POp(dist.isend, x, after, handle) for x in held]
                + [dist.P2POp(dist.irecv, x, before, handle) for x in coming]
            )
            yield step == 1, held
            for work in works:
                work.wait()
            held = coming
        yield False, held


ALONE = Processes("", None, 1, 0, True)


def grown(rows: Tensor, size: int) -> Tensor:
    """With zeros below, up to so many rows: collectives take one shape."""
    missing = size - rows.shape[0]
    return rows if not missing else torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:])))
