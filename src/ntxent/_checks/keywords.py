"""What is said of arguments that a loss doesn't have: how they are called here, or what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from numbers import Real
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

ACROSS = "group axis_name cross_replica"
# Names that other implementations have, and ours: the first that the function takes.
OURS = {
    **dict.fromkeys(("tau", "t", "T", "temp", "temperatures"), "temperature"),
    **dict.fromkeys(("norm", "normalise", "normalized", "normalise_rows"), "normalize"),
    **dict.fromkeys(("hidden_norm", "l2_normalize"), "normalize"),
    **dict.fromkeys(("reduce", "size_average"), "reduction"),
    **dict.fromkeys(("impl", "method"), "implementation"),
    **dict.fromkeys(("queue", "negative_keys", "hard_negatives", "memory_bank"), "negatives"),
    **dict.fromkeys(("features", "embeddings", "projections", "rows"), "z query"),
    **dict.fromkeys(("label", "targets", "target", "y"), "labels"),
    **dict.fromkeys(("queries", "anchor", "anchors"), "query"),
    **dict.fromkeys(("keys", "positive", "positives", "positive_key"), "key"),
    **dict.fromkeys(("learnable_temperature", "learn_tau", "learnable"), "learn_temperature"),
    **dict.fromkeys(("gather_distributed", "gather_with_grad", "process_group"), ACROSS),
    **dict.fromkeys(ACROSS.split(), ACROSS),
}
LABELS = "For labels use sup_con(z, labels); images that are never negatives of each other are ids."
VIEWS = "Views are passed one by one, as many as there are: nt_xent(z1, z2)."
READ = "It is read from the arrays: leave it out."
INSTEAD = {
    **dict.fromkeys(("labels", "label", "targets", "target", "y"), LABELS),
    **dict.fromkeys(("n_views", "num_views", "views", "z1", "z2"), VIEWS),
    **dict.fromkeys(("batch_size", "world_size", "device", "rank"), READ),
    **dict.fromkeys(("scale", "logit_scale"), "Pass temperature=1 / scale."),
    "base_temperature": "Leave it out and multiply the loss by temperature / base_temperature.",
    "contrast_mode": 'Every row is an anchor, which is "all" elsewhere: leave it out.',
    "eps": "Nothing needs it: leave it out.",
    "learn_temperature": "The modules have it; to learn it here, pass it as an array.",
    "negative_mode": "Negatives say it by their shape: (K, d) are shared, (N, M, d) each query's.",
}


def named(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose refusal of arguments that it doesn't have names those that it has."""
    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter
    places = [x.name for x in parameters if x.kind is kinds.POSITIONAL_OR_KEYWORD]
    keywords = [*places, *(x.name for x in parameters if x.kind is kinds.KEYWORD_ONLY)]
    keywords = [name for name in keywords if name != "self"]
    allowed = frozenset(keywords)
    several = any(x.kind is kinds.VAR_POSITIONAL for x in parameters)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in allowed:
                refuse(function.__qualname__, name, keywords)
        if not several and len(args) > len(places):
            refuse_place(function.__qualname__, args[len(places) :], places, keywords)
        return function(*args, **kwargs)

    return checked


def refuse(function: str, name: str, keywords: Sequence[str]) -> NoReturn:
    """An argument by a name that isn't known: what Python says, and what is meant."""
    ours = [x for x in OURS.get(name, "").split() if x in keywords]
    if ours:
        advice = f"Here it is {ours[0]}."
    elif name in INSTEAD:
        advice = INSTEAD[name]
    else:
        from difflib import get_close_matches  # only here: it is of no use to a right call

        near = get_close_matches(name, keywords, 1)
        advice = f"Did you mean {near[0]}?" if near else ""
    told = f"{function}() got an unexpected keyword argument {name!r}."
    msg = " ".join(filter(None, (told, advice, known(keywords))))
    raise TypeError(msg)


def refuse_place(
    function: str, rest: Sequence[Any], places: Sequence[str], keywords: Sequence[str]
) -> NoReturn:
    """Arguments by their place, of which there are too many."""
    came, taken = len(places) + len(rest), len(places)
    told = f"takes {taken} positional argument{'s' * (taken != 1)} but {came} were given."
    if isinstance(rest[0], Real):
        told += f" If {rest[0]!r} is the temperature, name it: temperature={rest[0]!r}."
    msg = f"{function}() {told} {known([x for x in keywords if x not in places], 'by name ')}"
    raise TypeError(msg)


def known(keywords: Sequence[str], how: str = "") -> str:
    """All that it takes."""
    return f"It takes {how}{', '.join(keywords)}."
