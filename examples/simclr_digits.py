"""SimCLR on real images: an encoder learns digits without labels, then from 10 labels a class.

python examples/simclr_digits.py                      about a minute on two cores
python examples/simclr_digits.py --quick              two epochs, to see that it runs

It prints the accuracy of a linear probe and of the nearest neighbour on raw pixels, on an untrained
encoder and on the trained one, and saves a figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _digits
import numpy as np
import torch
from _digits import Array
from torch import Tensor, nn
from tqdm import tqdm

from ntxent.torch import nt_xent


class Encoder(nn.Module):
    """Three small convolutions; the projection head is thrown away after training."""

    def __init__(
        self, channels: tuple[int, ...] = (32, 64, 128), strides: tuple[int, ...] = (1, 2, 2)
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
        """Of the projected rows."""
        self.eval()
        rows = self(torch.from_numpy(views)).numpy()
        self.train()
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
    with tqdm(total=steps * options.epochs, desc="training", unit="step") as bar:
        for _ in range(options.epochs):
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
                bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-steps:]):.3f}")
    return losses


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=Path("simclr_digits.png"))
    parser.add_argument("--quick", action="store_true", help="two epochs")
    options = parser.parse_args()
    if options.quick:
        options.epochs = 2
    return options


def main() -> None:
    """Score raw pixels and the untrained encoder, train, score again."""
    options = parsed()
    torch.manual_seed(options.seed)
    digits = _digits.load()
    encoder = Encoder()
    rng = np.random.default_rng(options.seed)
    batch = np.concatenate([_digits.augment(digits.train[:20], rng) for _ in range(2)])
    scores = {
        "raw pixels": _digits.score(lambda images: images.reshape(len(images), -1), digits),
        "untrained encoder": _digits.score(encoder.features, digits),
    }
    before = encoder.similarities(batch)
    losses = train(encoder, digits.train, options)
    scores["trained without labels"] = _digits.score(encoder.features, digits)
    _digits.save_figure(options.figure, losses, before, encoder.similarities(batch))
    print(_digits.table(scores))
    print(f"figure: {options.figure}")


if __name__ == "__main__":
    main()
