"""SimCLR on real images: an encoder learns digits without labels, then from 10 labels a class.

python examples/simclr_digits.py                      under half a minute
python examples/simclr_digits.py --quick              two epochs, to see that it runs

It prints the accuracy of a linear probe and of the nearest neighbour on raw pixels, on the
untrained encoder and on the trained one, and saves a figure. The test images are seen by neither
training nor label draws; augmentation, temperature and the like were chosen on a part of the
training images.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import _digits
import _digits_figure
import numpy as np
import torch
from _digits import Array
from torch import Tensor, nn
from tqdm import tqdm

from ntxent.torch import nt_xent


class Encoder(nn.Module):
    """Three small convolutions; the projection head is thrown away after training."""

    def __init__(
        self, channels: tuple[int, ...] = (32, 64, 64), strides: tuple[int, ...] = (1, 2, 2)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after, stride in zip(channels, strides, strict=True):
            convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(4 * before, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, images: Tensor) -> Tensor:
        """The rows that the loss compares."""
        projected: Tensor = self.head(self.body(images[:, None]))
        return projected

    @torch.no_grad()
    def features(self, images: Array) -> Array:
        """What the probe sees: the body's output."""
        self.eval()
        found: Array = self.body(torch.from_numpy(images)[:, None]).numpy()
        self.train()
        return found

    @torch.no_grad()
    def similarities(self, views: Array) -> Array:
        """Cosines of the projected rows as the loss sees them: normalised by this batch."""
        # A copy, because the pass moves the averages that `features` normalises by.
        rows = copy.deepcopy(self).train()(torch.from_numpy(views)).numpy()
        return _digits.similarities(rows)


def train(encoder: Encoder, images: Array, options: argparse.Namespace) -> list[float]:
    """Make two views of every image, again in every epoch, and let them find each other."""
    rng = np.random.default_rng(options.seed)
    steps = len(images) // options.batch_size
    optimizer = torch.optim.AdamW(encoder.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=steps * options.epochs, pct_start=0.1
    )
    losses = []
    with tqdm(range(options.epochs), desc="training", unit="epoch") as bar:
        for _ in bar:
            order = rng.permutation(len(images))
            for chosen in np.split(order[: steps * options.batch_size], steps):
                views = [_digits.augment(images[chosen], rng) for _ in range(2)]
                # One pass for both views: batch normalisation must not tell them apart.
                z1, z2 = encoder(torch.from_numpy(np.concatenate(views))).chunk(2)
                loss = nt_xent(z1, z2, temperature=options.temperature)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(losses[-steps:]):.3f}")
    return losses


def parsed(images: int) -> argparse.Namespace:
    """The command line, for so many training images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    # Batches this small gain little from a second thread, and where another program has its core
    # the threads wait for each other: on two busy cores one took 17 s where two took 121 s.
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    encoder = Encoder()
    images, labels = _digits.display_batch(digits)
    rng = np.random.default_rng(options.seed)
    views = np.concatenate([_digits.augment(images, rng) for _ in range(2)])
    scores = {
        "raw pixels": _digits.score(lambda images: images.reshape(len(images), -1), digits),
        "untrained encoder": _digits.score(encoder.features, digits),
    }
    before = encoder.similarities(views)
    losses = train(encoder, digits.train, options)
    scores["trained encoder"] = _digits.score(encoder.features, digits)
    steps, chance = len(losses) // options.epochs, float(np.log(2 * options.batch_size - 1))
    print(f"{len(digits.train)} images to train on, without labels; {len(digits.test)} to test on")
    print(
        f"loss: {np.mean(losses[:steps]):.3f} in the first epoch, {np.mean(losses[-steps:]):.3f} "
        f"in the last of {options.epochs}; {chance:.3f} if every row were alike\n"
    )
    print(_digits.table(scores))
    pictures = _digits_figure.Batch(views, labels, before, encoder.similarities(views))
    _digits_figure.save(options.figure, np.reshape(losses, (-1, steps)), chance, pictures)
    print(f"\nfigure: {options.figure}")


if __name__ == "__main__":
    main()
