"""Other packages' losses: each module of a loss, without the packages that it doesn't need."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers._alone import alone

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def pinned() -> dict[str, str]:
    """The release of each package that constraints.txt pins."""
    return dict(re.findall(r"^([\w-]+)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE))


def installed(package: str) -> str:
    """The release that is here, without what tells a build (2.13.0+cpu) from another."""
    return version(package).partition("+")[0]


def lightly(name: str) -> Any:
    """`lightly.loss.NAME`."""
    return alone(f"lightly.loss.{name}", {"lightly.models.utils": {}})


def solo_learn(name: str) -> Any:
    """`solo.losses.NAME`."""
    return alone(f"solo.losses.{name}")


def keras_cv() -> Any:
    """KerasCV's SimCLR, under the backend of Keras at hand."""
    import keras

    path = "keras_cv.src."
    export = {"keras_cv_export": lambda path: lambda symbol: symbol}
    stand_ins = {
        path + "api_export": export,
        path + "backend": {"keras": keras, "ops": keras.ops},
    }
    return alone(path + "losses.simclr_loss", stand_ins)


def cosines(a: Any, b: Any) -> Any:
    """What sentence-transformers' `cos_sim` gives."""
    from torch.nn.functional import normalize

    return normalize(a, dim=1) @ normalize(b, dim=1).T


def sentence_transformers() -> Any:
    """The module of MultipleNegativesRankingLoss; a test gives embeddings, no model."""
    path = "sentence_transformers."
    across = ("all_gather_with_grad", "get_rank", "similarity_fct_name")
    stand_ins = {
        path + "base.losses.merged_forward": {"embed_columns": None},
        path + "sentence_transformer.model": {"SentenceTransformer": None},
        path + "util": {"cos_sim": cosines, **dict.fromkeys(across)},
    }
    return alone(path + "sentence_transformer.losses.multiple_negatives_ranking", stand_ins)
