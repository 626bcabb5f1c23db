"""Two towers, as in CLIP: the upper and the lower half of a digit as two modalities.

python examples/two_towers_digits.py            under a minute
python examples/two_towers_digits.py --quick    a few epochs, to see that it runs

Each tower is an encoder of its own. Given an upper half, its lower half is to be found among
those of all test images, and the other way round: recall@1, before and after training. Halves of
one class look alike, so that few can be told apart. The temperature is learned, and bounded as CLIP
bounds it. (arXiv 2103.00020)
"""

from __future__ import annotations

import math
import sys

import _digits
import _digits_training
import numpy as np
import torch
from torch import Tensor, nn

from ntxent.torch import InfoNCELoss

torch.set_num_threads(1)  # batches this small gain little from a second one

BATCH = 256
HALF = _digits.SIDE // 2
LEAST_TEMPERATURE = 0.01  # CLIP's logit scale is at most 100


def tower() -> nn.Module:
    """From half an image to a row."""
    pixels = HALF * _digits.SIDE
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, 32),
    )  # fmt: skip


def halves(images: np.ndarray) -> tuple[Tensor, Tensor]:
    """The upper and the lower half of each image."""
    return torch.from_numpy(images[:, :HALF]), torch.from_numpy(images[:, HALF:])


@torch.no_grad()
def recall(towers: nn.ModuleList, images: np.ndarray) -> tuple[float, float]:
    """In percent: how many upper halves find their lower half first, and the reverse."""
    upper, lower = (
        nn.functional.normalize(tower(half), dim=1)
        for tower, half in zip(towers, halves(images), strict=True)
    )
    similar, own = upper @ lower.T, torch.arange(len(images))
    forth, back = (100 * (similar.argmax(dim) == own).float().mean().item() for dim in (1, 0))
    return forth, back


def train(towers: nn.ModuleList, loss: InfoNCELoss, images: np.ndarray, epochs: int) -> None:
    """Both halves of one moved, turned and noisy image are a pair."""
    optimizer = torch.optim.Adam([*towers.parameters(), *loss.parameters()])
    rng, steps = np.random.default_rng(0), len(images) // BATCH
    for step in range(epochs * steps):
        if step % steps == 0:
            order = rng.permutation(len(images))
        chosen = order[step % steps * BATCH :][:BATCH]
        pair = halves(_digits.augment(images[chosen], rng))
        value = loss(*(tower(half) for tower, half in zip(towers, pair, strict=True)))
        optimizer.param_groups[0]["lr"] = _digits_training.learning_rate(step, epochs * steps)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        # Unbounded, it would shrink for as long as the training images can be told apart.
        loss.log_temperature.data.clamp_(min=math.log(LEAST_TEMPERATURE))


def main() -> None:
    """Recall before and after."""
    torch.manual_seed(0)
    digits = _digits.load()
    towers = nn.ModuleList([tower(), tower()])
    loss = InfoNCELoss(temperature=0.07, learn_temperature=True, symmetric=True)
    print(f"recall@1 among {len(digits.test)} test images, in %: upper to lower, lower to upper")
    print(f"chance            {100 / len(digits.test):5.1f} {100 / len(digits.test):5.1f}")
    print("before training   {:5.1f} {:5.1f}".format(*recall(towers, digits.test)))
    train(towers, loss, digits.train, epochs=30 if "--quick" in sys.argv else 300)
    print("after training    {:5.1f} {:5.1f}".format(*recall(towers, digits.test)))
    print(f"temperature       {loss.temperature.item():.3f}, from 0.070")


if __name__ == "__main__":
    main()
