"""What is a single node of Dynamo's graph each: the hot operation, and the sums of classes.

Dynamo would trace into a function's backward, and lose the derivative of that one: a second
derivative inside `torch.compile` would be wrong. To register this takes Dynamo itself, two seconds
of imports, so the module is imported by the first trace and by nothing else.
"""

from __future__ import annotations

from typing import Any

import torch

from ntxent.torch._transforms.class_sums import ClassSums
from ntxent.torch._transforms.functions import PairLogsumexp


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def pair_logsumexp(*inputs: Any) -> Any:
    """See `PairLogsumexp`."""
    return PairLogsumexp.apply(*inputs)


@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def class_sums(*inputs: Any) -> Any:
    """See `ClassSums`."""
    return ClassSums.apply(*inputs)
