"""The contract: defaults, and what each loss refuses. Standard library only.

The mathematics is in `_formula.py`; this page says what may be passed to it. All backends call
these checks, so all say the same words, which are in `_checks/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

from ntxent._checks.arguments import (
    DENOMINATORS,
    ArrayKind,
    check_alike,
    check_choices,
    check_ids,
    check_negatives,
    check_rows,
    check_switches,
    check_temperature,
    size,
)
from ntxent._checks.messages import stacked, warn

TEMPERATURE = 0.1
# Rows of all processes up to so many bytes are gathered if `exchange` doesn't say: 500 000 rows of
# 128 float32. One collective, not a message for each shard, and little of an accelerator's memory.
GATHER_BYTES = 256 * 2**20


class Options(NamedTuple):
    """What every loss takes by name, whatever its rows are."""

    temperature: Any = TEMPERATURE
    normalize: bool = True
    reduction: str = "mean"
    implementation: Any = None  # what the user asks for, and later what a backend makes of it
    across: Any = None  # the processes that hold a batch together, `_protocol.Across`

    def checked(self, check: Callable[..., None], kind: ArrayKind, *arguments: Any) -> Self:
        """The same after a check, which all processes make together."""
        if self.across is None:
            check(kind, self, *arguments)
            return self
        return self._replace(across=self.across.checked(check, (kind, self, *arguments)))


def check_options(
    kind: ArrayKind,
    options: Options,
    rows: Any,
    denominator: str = DENOMINATORS[0],
    **switches: Any,
) -> None:
    """Those of every loss."""
    check_temperature(kind, options.temperature, rows)
    check_choices(kind, denominator, options.reduction, options.implementation)
    check_switches(**switches, normalize=options.normalize)


def check_nt_xent(
    kind: ArrayKind,
    options: Options,
    views: Sequence[Any],
    ids: Any,
    denominator: str,
    alone: bool = True,
) -> None:
    """Refuse what `nt_xent` can't give a right number for; not alone, others have more rows."""
    if len(views) < 2:
        msg = (
            f"expected at least two views, each an array of shape (N, d); got {len(views)}. "
            f"Pass them one by one: nt_xent(z1, z2). From one array, {stacked(kind.LINES)}."
        )
        raise ValueError(msg)
    check_alike(kind, views, lambda number: f"view {number + 1}", "all views", "image")
    check_options(kind, options, views[0], denominator)
    rows = size(views[0])
    if ids is not None:
        check_ids(kind, "ids", ids, views[0], rows, "one for each image (not for each view)")
    if denominator == "negatives" and alone:
        if rows == 1:
            raise ValueError(NO_NEGATIVES.format("N = 1"))
        known = None if ids is None else kind.known(ids)
        if known is not None and len(set(known)) == 1:
            raise ValueError(NO_NEGATIVES.format("ids that are all equal"))


NO_NEGATIVES = (
    'denominator="negatives" needs at least one negative a row; got {}, which leaves none. '
    'Pass more than one image (with different ids), or use denominator="all".'
)


def check_sup_con(
    kind: ArrayKind, options: Options, z: Any, labels: Any, alone: bool = True
) -> None:
    """Refuse what `sup_con` can't give a right number for, warn of a batch that teaches nothing.

    Not alone, others have more labels.
    """
    check_rows(kind, "z", z)
    check_options(kind, options, z)
    check_ids(kind, "labels", labels, z, size(z), "one for each row of z")
    known = kind.known(labels) if alone else None
    if known is not None and len(set(known)) == len(known):
        warn(NO_POSITIVE.format(len(known)))


NO_POSITIVE = (
    "sup_con got a batch in which no row has a positive: {} labels, no two of them equal. Its loss "
    "is 0 and so are all gradients: a step on it teaches nothing. Draw batches with several rows "
    "of a label (views of one image are such rows); for pairs of views without labels, use "
    "nt_xent(z1, z2)."
)


def check_info_nce(
    kind: ArrayKind,
    options: Options,
    query: Any,
    key: Any,
    negatives: Any,
    ids: Any,
    symmetric: bool,
    alone: bool = True,
) -> None:
    """Refuse what `info_nce` can't give a right number for."""
    check_alike(kind, (query, key), ("query", "key").__getitem__, "query and key", "pair")
    del alone  # nothing depends on it here
    check_options(kind, options, query, symmetric=symmetric)
    pairs, words = size(query), "one for each pair"
    if negatives is not None:
        check_negatives(kind, negatives, query)
        if len(negatives.shape) == 2:
            words = "N + K: one for each pair, then one for each of the shared negatives"
            more = size(negatives)
            pairs = None if pairs is None or more is None else pairs + more
    if ids is not None:
        check_ids(kind, "ids", ids, query, pairs, words)
