"""The losses of rows and their derivatives, from log-sum-exps and positives: O(n) numbers.

Row i has a log-sum-exp L_i over its negatives and positives p_ij = scale * dot_ij, j = 1 ... m:

    contrast        l_i = mean_j softplus(L_i - p_ij)        "one_positive", and a class's mean
    decoupled       l_i = L_i - mean_j p_ij                  "negatives"
    all_positives   l_i = softplus(L_i - P_i) + mean_j (P_i - p_ij)          "all"

with P_i = log sum_j exp(p_ij). All three depend on L_i and the p_ij alone, and a stage gives both
weights at once:

    push_i  =  dl_i / dL_i          towards the negatives
    pull_ij = -dl_i / dp_ij         towards the positives

`ops` names what NumPy and PyTorch name differently; a dot is whatever its `row_dot` made. All of it
is float64 where that is: an upstream of 1e8 may yet lift a weight that float32 would have lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

Array = Any


class Stage(NamedTuple):
    """Losses, and their weights where they are wanted."""

    losses: Array
    push: Array | None = None
    pulls: Sequence[Any] = ()  # one for each positive


def stage_of(
    ops: Any, lse: Array, dots: Sequence[Array], scale: Any, denominator: str, weighted: bool
) -> Stage:
    """That of a `denominator` of NT-Xent; with one positive "all" is "one_positive"."""
    if denominator == "one_positive" or (denominator == "all" and len(dots) == 1):
        return mean_of([contrast(ops, lse, dot, scale, weighted) for dot in dots])
    stage = decoupled if denominator == "negatives" else all_positives
    return stage(ops, lse, dots, scale, weighted)


def contrast(
    ops: Any, lse: Array, dot: Array, scale: Any, weighted: bool, within: Array | None = None
) -> Stage:
    """softplus(L - p), or L - p where the positive is `within` L already."""
    x = ops.minus_product(lse, dot, scale)
    losses = ops.softplus(x)
    found = losses if within is None else ops.xp.where(within, x, losses)
    if not weighted:
        return Stage(found)
    push = ops.sigmoid(x, losses)
    if within is not None:
        push = ops.xp.where(within, 1.0, push)
    return Stage(found, push, (push,))


def decoupled(ops: Any, lse: Array, dots: Sequence[Array], scale: Any, weighted: bool) -> Stage:
    """L - mean p; without any negative L is -inf, which makes loss and gradient NaN."""
    proper = 1 + (lse - lse)
    positive = reduce(add, (ops.scaled(dot, scale) for dot in dots)) / len(dots)
    losses = lse - positive * proper
    return Stage(losses, proper, (proper / len(dots),) * len(dots)) if weighted else Stage(losses)


def all_positives(ops: Any, lse: Array, dots: Sequence[Array], scale: Any, weighted: bool) -> Stage:
    """In two terms, neither of which is negative (arXiv 2004.11362, eq. 2)."""
    logits = [ops.scaled(dot, scale) for dot in dots]
    lse_positives = reduce(ops.xp.logaddexp, logits)
    spread = reduce(add, (lse_positives - logit for logit in logits)) / len(dots)
    x = lse - lse_positives
    losses = ops.softplus(x)
    if not weighted:
        return Stage(losses + spread)
    push = ops.sigmoid(x, losses)
    shares = [ops.xp.exp(logit - lse_positives) for logit in logits]
    return Stage(losses + spread, push, [1 / len(dots) - (1 - push) * share for share in shares])


def mean_of(stages: Sequence[Stage]) -> Stage:
    """Of stages with the same log-sum-exp and one positive each."""
    if len(stages) == 1:
        return stages[0]
    count = len(stages)
    losses = reduce(add, (stage.losses for stage in stages)) / count
    pulls = [stage.push / count for stage in stages if stage.push is not None]
    return Stage(losses, reduce(add, pulls), pulls) if pulls else Stage(losses)
