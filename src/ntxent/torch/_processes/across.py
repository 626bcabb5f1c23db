"""A batch over many processes, as the formula asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from ntxent._checks.arguments import check_exchange
from ntxent.torch._processes import announcement
from ntxent.torch._processes.group import Group
from ntxent.torch._transforms import operators


class Processes(Group):
    """`_protocol.Across`: a group of which each process has a shard of the rows."""

    __slots__ = ()

    @classmethod
    def of(cls, group: Any, exchange: str | None) -> Self | None:
        """From what the user passes: None (or False), True or a process group."""
        if group is None or group is False:
            check_exchange(exchange)
            if exchange is not None:
                msg = f"exchange={exchange!r} needs a group; pass group=True or a process group."
                raise ValueError(msg)
            return None
        if not (dist.is_available() and dist.is_initialized()):
            msg = (
                "group needs torch.distributed, which isn't initialized; call "
                "torch.distributed.init_process_group() first, or leave group out. What runs in "
                "one process as well as in several passes group=torch.distributed.is_initialized()."
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

    def checked(self, check: Callable[..., None], arguments: Sequence[Any]) -> Self:
        """Run a check and compare the calls; what one process refuses, all refuse."""
        alone = self.processes == 1
        if alone or torch.compiler.is_compiling():  # then shards are compared when it runs
            check_exchange(self.exchange)
            check(*arguments, alone=alone)
            return self._replace(even=alone)
        error: Exception | None = None
        try:
            check_exchange(self.exchange)
            check(*arguments, alone=False)
        except Exception as found:  # noqa: BLE001 whatever it is, the others would wait
            error = found
        _, options, *others = arguments
        names = check.__code__.co_varnames[2:]  # of the others: how the message calls them
        told = {**options._asdict(), **dict(zip(names, others, strict=False))}
        told["exchange"] = told.pop("across").exchange
        rows = [x for value in others for x in announcement.flat(value)]
        card = announcement.written(told, error)
        cards = announcement.read(self.all_gathered(card, rows[0] if rows else None))
        if error is not None:
            raise error
        return self._replace(even=announcement.compared(cards))

    def mean(self, value: Any) -> Any:
        """Over the processes, without gradient."""
        if not isinstance(value, Tensor):
            if self.even:
                return value
            value = torch.full((), value, dtype=torch.float64)
        return operators.process_mean(value.detach(), *self)
