"""What `_formula` asks of a backend: its arrays' operations, and its processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from ntxent._checks.arguments import ArrayKind
from ntxent._labels import Classes

Array = Any


class Across(Protocol):
    """The processes that hold a batch together, each a shard of its rows.

    The gradient of a shard is the sum of what the losses of all processes have for it, so that the
    mean over processes of gradients is that of the mean of losses.
    """

    @property
    def processes(self) -> Any:
        """How many there are."""

    def checked(self, check: Callable[..., None], arguments: Sequence[Any]) -> Self:
        """Run a check; what one process refuses, all refuse."""

    def row_ids(self, rows: Array) -> Array:
        """A number for each row that no other row of any process has."""

    def mean(self, value: Any) -> Any:
        """The mean over processes of a number, or of a 0-d array without gradient."""


class Ops(ArrayKind, Protocol):
    """The names over which the family is written; other arithmetic is the arrays' own `+ - *`."""

    def evaluate(
        self,
        loss: Callable[[Any, Sequence[Array], Any], Array],
        closed: Callable[..., Any],
        arrays: Sequence[Array],
        options: Any,
    ) -> Array:
        """`loss(ops, arrays, options)`, which the backend differentiates.

        Or `closed(ops, arrays, temperature, options, needs)`, the same with its gradient, which has
        no use for the options' temperature and may hold them on. Both are carried out by the `ops`
        that they are given, as a rule the backend itself.
        """

    def count(self, rows: Array) -> Any:
        """How many rows: an int, or a 0-d array where it isn't known yet."""

    def stack(self, *arrays: Array) -> Array:
        """The rows of all arrays, one after the other, in float32 or wider."""

    def stack_unit(self, *arrays: Array) -> Array:
        """The same, each row divided by its length; a zero row stays zero."""

    def inverse(self, temperature: Any, like: Array) -> Any:
        """1/temperature; of an array 0-d, in `like`'s dtype, NaN if not positive and finite."""

    def repeat(self, ids: Array, times: int) -> Array:
        """The ids over and over, once a view."""

    def one_id(self, rows: Array, value: int) -> Array:
        """The same id for all rows."""

    def classes(self, labels: Array, across: Across | None) -> Classes:
        """Which rows have one label, and how many others each row has."""

    def positive_means(self, rows: Array, classes: Classes, across: Across | None) -> Array:
        """The mean of the other rows of each row's class, (n, d); 0 where there is none."""

    def partner_logits(self, rows: Array, partners: Array | int, scale: Any) -> Array:
        """`scale` times the dot product of each row with its partner, (n,).

        Partners are rows, or how many rows further on they are (mod n).
        """

    def contrast(self, lse: Array, positive: Array) -> Array:
        """-log(exp(positive) / (exp(positive) + exp(lse))) = softplus(lse - positive)."""

    def partner_contrast(
        self,
        lse: Array,
        rows: Array,
        partners: Array | int,
        scale: Any,
        within: Array | None = None,
    ) -> Array:
        """`contrast(lse, partner_logits(rows, partners, scale))`, in one step.

        Where the positives are `within` the log-sum-exp already it is lse - logit, no softplus.
        """

    def logaddexp(self, a: Array, b: Array) -> Array:
        """log(exp(a) + exp(b))."""

    def own_logsumexp(self, queries: Array, keys: Array, scale: Any) -> Array:
        """Log-sum-exp of `scale` times the dot products of query i with keys[i], (n, m, d)."""

    def half(self, x: Array, index: int) -> Array:
        """The first or the second half of a vector."""

    def or_one(self, count: Array) -> Array:
        """The number, 1 in place of 0: what a sum over so many is divided by."""

    def reduce(self, rows: Array, reduction: str, dtype: Any) -> Array:
        """The mean, the sum, or for "none" the rows themselves, in a dtype."""

    def pair_logsumexp(
        self,
        queries: Array,
        keys: Array | None,
        scale: Any,
        query_ids: Array | int,
        key_ids: Array | int | None,
        options: Any,
        columns: bool = False,
    ) -> Array:
        """Log-sum-exp of `scale * queries @ keys.T` along rows, then down `columns`: (n + m,).

        Only pairs with `query_ids[i] != key_ids[k]` count; a row without any gives -inf. An integer
        P as both ids stands for 0 ... P-1 over and over, so that no index array is built.
        `keys=None` means the queries themselves: each tile then serves its rows and its columns.
        Rows that are normalised have length 1 at most, so that |score| <= scale and no running
        maximum may be needed. Across processes rows are a shard's: those of the queries are over
        the keys of all, and columns over the queries of all. Ids are arrays then.
        """
