"""SimCLR on real images: an encoder learns digits without labels, then from 10 labels a class.

python examples/simclr_digits.py                      under a minute, with PyTorch
python examples/simclr_digits.py --backend jax        or tensorflow, or numpy
python examples/simclr_digits.py --quick              two epochs, to see that it runs

It prints the accuracy of a linear probe and of the nearest neighbour on raw pixels, on the
untrained encoder and on the trained one, and saves a figure. The test images are seen by neither
training nor label draws; augmentation, temperature and the like were chosen on a part of the
training images. All backends start from the same weights and see the same views.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import _digits
import _digits_figure
import _digits_network
import _digits_training
import numpy as np


def parsed(images: int) -> argparse.Namespace:
    """The command line, for so many training images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backend",
        choices=["torch", "jax", "tensorflow", "numpy"],
        default="torch",
        help="(default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.5, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--figure", type=Path, default=Path("simclr_digits.png"), help="(default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.epochs = 2
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {options.epochs}")
    if not 2 <= options.batch_size <= images:
        parser.error(f"--batch-size must be 2 to {images}, got {options.batch_size}")
    return options


def main() -> None:
    """Score raw pixels and the untrained encoder, train, score again."""
    digits = _digits.load()
    options = parsed(len(digits.train))
    kernels = _digits_network.initial_kernels(options.seed)
    import_module(f"ntxent.{options.backend}")  # first: its ImportError says what to install
    module = import_module(f"_digits_{options.backend}")
    encoder: _digits_training.Encoder = module.Encoder(kernels, options.temperature)
    images, labels = _digits.display_batch(digits)
    rng = np.random.default_rng(options.seed)
    views = _digits_training.two_views(images, rng)
    scores = {
        "raw pixels": _digits.score(lambda images: images.reshape(len(images), -1), digits),
        "untrained encoder": _digits.score(encoder.features, digits),
    }
    before = _digits.similarities(encoder.projections(views))
    rng = np.random.default_rng(options.seed)
    losses = _digits_training.train(encoder, digits.train, options.epochs, options.batch_size, rng)
    scores["trained encoder"] = _digits.score(encoder.features, digits)
    print(f"{len(digits.train)} images to train on, without labels; {len(digits.test)} to test on")
    print(_digits_training.summary(losses, options.epochs, options.batch_size) + "\n")
    print(_digits.table(scores))
    after = _digits.similarities(encoder.projections(views))
    pictures = _digits_figure.Batch(views, labels, before, after)
    chance = _digits_training.chance(options.batch_size)
    by_epoch = np.reshape(losses, (options.epochs, -1))
    _digits_figure.save(options.figure, by_epoch, chance, pictures)
    print(f"\nfigure: {options.figure}")


if __name__ == "__main__":
    main()
