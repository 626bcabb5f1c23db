"""Every repair of docs/_ext/mathml.py is needed, and gives what browsers lay out as TeX does.

python docs/checks/formulas.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).parents[1] / "_ext"))
from mathml import REPAIRS, mathml

# For each repair, in their order: formulas, and what they have by it alone.
REPAIRED = [
    {
        r"\exp x": '<mi>exp</mi><mspace width="0.17em"/><mi>x</mi>',
        r"\log \sum": '<mi>log</mi><mspace width="0.17em"/><mo>',
    },
    {"a/b": '<mo lspace="0" rspace="0">/</mo>'},
    {r"\lVert x \rVert": '‖</mo><mi>x</mi><mo stretchy="false" lspace="0" rspace="0">‖</mo>'},
    dict.fromkeys(("(-1)", "1, -1", "x = -1", "[-1]", r"\bigl(-1"), '<mo form="prefix">&#x02212;'),
    {r"\mathrm{softplus}": "<mi>softplus</mi>"},
    {r"\mathcal N": "<mi>\N{MATHEMATICAL SCRIPT CAPITAL N}</mi>"},
]
AS_CONVERTED = (r"\exp(x)", "a - b", "a = b", r"\mathrm{d}x", "x_i")


def faults() -> Iterator[str]:
    """Formulas that come out otherwise."""
    for (pattern, repair), examples in zip(REPAIRS, REPAIRED, strict=True):
        for latex, expected in examples.items():
            converted = convert(latex)
            if expected in converted:
                yield f"{latex} needs no repair any more"
            if expected not in re.sub(pattern, repair, converted):
                yield f"{latex} is not repaired by {pattern}"
            if expected not in mathml(latex, "inline"):
                yield f"{latex} is repaired, and then broken"
    for latex in AS_CONVERTED:
        if mathml(latex, "inline") != convert(latex, display="inline"):
            yield f"{latex} is changed, and was right"


def main() -> int:
    """Print what is wrong; how much is."""
    wrong = list(faults())
    print(*wrong, sep="\n", end="\n" if wrong else "")
    count = sum(map(len, REPAIRED)) + len(AS_CONVERTED)
    print(f"{count} formulas, {len(wrong)} come out otherwise")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
