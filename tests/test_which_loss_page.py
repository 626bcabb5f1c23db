"""The page docs/which-loss.md says what its tests tested, and names the releases."""

from __future__ import annotations

import inspect
import re

import pytest

import _peers
import test_which_loss as packages
import test_which_loss_formulas as formulas
from _lines import PAGE, blocks, losses_in

pytestmark = [pytest.mark.only("torch"), pytest.mark.extras]

TESTED = [  # the sections of the page, in its order, and their tests
    (
        "SupContrast",
        [formulas.test_supcontrast, formulas.test_supcontrast_counts_rows_without_a_positive],
    ),
    ("SupCon", [formulas.test_google_research_sup_con]),
    ("SimCLR", [formulas.test_the_authors_simclr, packages.test_keras_cv]),
    (
        "pytorch-metric-learning",
        [
            packages.test_pair_means_of_views,
            packages.test_pair_means_of_classes_of_different_sizes,
        ],
    ),
    ("pytorch-metric-learning", [packages.test_pytorch_metric_learning_sup_con]),
    ("lightly", [packages.test_lightly, packages.test_those_that_have_the_same_number]),
    ("lightly", [packages.test_lightly_decoupled]),
    ("Decoupled contrastive learning", [formulas.test_decoupled]),
    ("info-nce-pytorch", [packages.test_info_nce_pytorch]),
    ("MoCo", [formulas.test_moco]),
    ("CLIP", [packages.test_clip]),
    ("sentence-transformers", [packages.test_sentence_transformers]),
]


def test_the_lines_of_the_page_are_those_that_are_tested() -> None:
    """Every `loss = ...` of a section is an `ours = ...` of its tests, word for word."""
    sections = re.split(r"^\*\*", PAGE.read_text(), flags=re.MULTILINE)[1:]
    for section, (name, tests) in zip(sections, TESTED, strict=True):
        assert section.startswith(f"{name}**")
        written = losses_in("".join(blocks(section)))
        assert written or name == "MoCo"  # which refers to the section before it
        assert written <= losses_in("".join(map(inspect.getsource, tests)))


def test_the_page_names_the_releases_that_are_compared() -> None:
    """Those of constraints.txt, which are installed; each package that the tests import."""
    table = PAGE.read_text().partition("## What was compared")[2]
    named = dict(re.findall(r"^\| ([\w-]+)(?: \([^)]*\))? \| ([\d.]+) \|", table, re.MULTILINE))
    pinned = _peers.pinned()
    assert len(named) == 9
    for package, release in named.items():
        assert release == pinned[package], f"{package} in constraints.txt"
        assert release == _peers.installed(package), f"{package} as installed"
