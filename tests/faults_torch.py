"""Calls of tests/test_torch_across.py that go wrong on one process, and what each says of it."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from across_torch import error_of, rows
from ntxent import torch as losses
from ntxent.torch._processes import group

FAULTS = ("d", "dtype", "requires_grad", "option", "temperature", "exchange", "grad mode")
FAULTS += ("the last of many", "shape", "not a tensor", "empty", "no such exchange", "overflow")


def faults(rank: int) -> dict[str, str]:
    """What each fault leads to; the group serves on after it."""
    return {name: fault(rank, name) for name in FAULTS}


def fault(rank: int, fault: str) -> str:
    """A call that goes wrong on process 1 alone."""
    z1, z2 = rows(rank, 5)
    views = [z1] * 30 if fault == "the last of many" else [z1]
    options: dict[str, Any] = {"group": True}
    if rank == 1:
        if fault == "exchange":
            options["exchange"] = "ring"
        elif fault == "no such exchange":
            options["exchange"] = "mail"
        elif fault == "overflow":
            options["temperature"] = 10**400
        elif fault == "grad mode":
            with torch.no_grad():
                return error_of(lambda: losses.nt_xent(z1, z2, **options))
        elif fault == "the last of many":
            z2 = z2.detach()
        elif fault == "d":
            z1, z2 = z1[:, :7], z2[:, :7]
        elif fault == "dtype":
            z1, z2 = z1.double(), z2.double()
        elif fault == "requires_grad":
            z2 = z2.detach()
        elif fault == "shape":
            z2 = z2[:3]
        elif fault == "not a tensor":
            z2 = z2.tolist()
        elif fault == "option":
            options["denominator"] = "one_positive"
        elif fault == "temperature":
            options["temperature"] = 0.3
        elif fault == "empty":
            z1, z2 = z1[:0], z2[:0]
    views = views if fault == "the last of many" else [z1]
    return error_of(lambda: losses.nt_xent(*views, z2, **options))


def compiled_fault(rank: int) -> str:
    """A d of its own on process 1, where calls can't be compared beforehand."""
    z1, z2 = rows(rank, 5, dim=4 + rank)
    compiled = torch.compile(losses.nt_xent, fullgraph=True, backend="aot_eager")
    return error_of(lambda: compiled(z1, z2, group=True))


def dies(rank: int) -> str:
    """Process 1 ends between its forward pass and its backward pass."""
    loss = losses.nt_xent(*rows(rank, 5), group=True, exchange="ring")
    if rank == 1:
        os._exit(1)
    return error_of(loss.backward)


def dies_at_work(rank: int) -> str:
    """Process 1 ends where it has begun to exchange rows."""
    if rank == 1:
        whole = group.exchanged
        group.exchanged = lambda *messages: (whole(*messages), os._exit(1))
    return error_of(lambda: losses.nt_xent(*rows(rank, 5), group=True, exchange="ring"))


def absent(rank: int) -> str:
    """Process 1 never calls."""
    if rank == 1:
        time.sleep(12)
        return "late"
    return error_of(lambda: losses.nt_xent(*rows(rank, 5), group=True))
