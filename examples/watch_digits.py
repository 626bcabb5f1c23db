"""What to watch while an encoder trains: numbers and pictures of images that it never trains on.

python examples/watch_digits.py                              under a minute
python examples/watch_digits.py --quick                      two epochs, to see that it runs
python examples/watch_digits.py --write                      table and figure of the page about it

The encoder and the views are those of simclr_digits.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _digits
import _digits_network
import _digits_torch
import _digits_training
import matplotlib as mpl
import numpy as np
from _digits import Array

import ntxent

mpl.use("Agg")  # draws to a file, with or without a screen
import matplotlib.pyplot as plt

EPOCHS = 50
BATCH = 128
TEMPERATURE = 0.5
LOOKS = (0, 1, 5, 20, 50)  # after so many epochs
SHOWN = ("top1", "top5", "alignment", "uniformity", "effective_negatives")

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FIGURE = DOCS / "howto/watch-training.md", DOCS / "figures/similarity.png"
# An example stands alone: what the other scripts write their pages with lies outside its folder.
START, END = "<!-- watch:start -->\n", "<!-- watch:end -->"


class Watched(_digits_torch.Encoder):
    """The encoder, looked at after some of its steps."""

    def __init__(self, images: Array, looks: list[int]) -> None:
        super().__init__(_digits_network.initial_kernels(seed=0), TEMPERATURE)
        self.images, self.looks, self.steps = images, looks, 0
        self.lines: list[str] = []
        self.tell("steps" + "".join(f"{name:>21}" for name in SHOWN))

    def step(self, views: Array, rate: float) -> float:
        """One more step."""
        self.look()
        self.steps += 1
        return super().step(views, rate)

    def look(self) -> None:
        """Tell what two views of the images have become, where it is time."""
        if self.steps in self.looks:
            found = vars(ntxent.diagnostics(*self.rows(), temperature=TEMPERATURE))
            self.tell(f"{self.steps:>5}" + "".join(f"{found[name]:>21.2f}" for name in SHOWN))

    def tell(self, line: str) -> None:
        """A line of the table, printed and kept."""
        print(line)
        self.lines.append(line)

    def rows(self) -> list[Array]:
        """Of two views, the same ones each time."""
        views = _digits_training.two_views(self.images, np.random.default_rng(0))
        return np.split(self.projections(views), 2)


def draw(path: Path, views: list[Array], labels: Array) -> None:
    """Two images of each digit, then all images; one above the other, for narrow screens."""
    few = (np.searchsorted(labels, range(10))[:, None] + np.arange(2)).ravel()
    figure, (above, below) = plt.subplots(2, 1, figsize=(5.4, 9.4), layout="constrained")
    ntxent.plot.similarity(*(view[few] for view in views), ids=labels[few], ax=above)
    above.set_title(f"{2 * len(few)} rows, ids = the digits")
    ntxent.plot.similarity(*views, ax=below)
    below.set_title(f"{2 * len(labels)} rows")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib in it, equal pictures are equal files.
    figure.savefig(path, dpi=120, metadata={"Software": None})


def write(lines: list[str]) -> None:
    """The table into the page."""
    before, rest = PAGE.read_text().split(START)
    after = rest.split(END)[1]
    table = "\n".join(["```text", *lines, "```", ""])
    PAGE.write_text(f"{before}{START}{table}{END}{after}")


def main() -> None:
    """Train, look after every few epochs, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that it runs")
    parser.add_argument(
        "--figure", type=Path, default=Path("watch_digits.png"), help="(default: %(default)s)"
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and its figure")
    options = parser.parse_args()
    digits = _digits.load()
    order = np.argsort(digits.test_labels, kind="stable")
    images, labels = digits.test[order], digits.test_labels[order]
    a_epoch = len(digits.train) // BATCH
    encoder = Watched(images, [epochs * a_epoch for epochs in LOOKS])
    epochs = 2 if options.quick else EPOCHS
    rng = np.random.default_rng(0)
    _digits_training.train(encoder, digits.train, epochs, BATCH, rng, quiet=True)
    encoder.look()
    figure = FIGURE if options.write else options.figure
    draw(figure, encoder.rows(), labels)
    print(f"figure: {figure}")
    if options.write:
        write(encoder.lines)


if __name__ == "__main__":
    main()
