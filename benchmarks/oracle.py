"""The inputs of a case, and the loss and gradient that they must give, in float64."""

from __future__ import annotations

import numpy as np

from benchmarks import peers
from benchmarks.cases import Setting

# Errors relative to the loss and to the gradient's largest entry. float64 and float32 as the tests
# hold them to at this temperature; of the others some units in the last place.
TOLERANCES = {
    "float64": (1e-12, 1e-10),
    "float32": (1e-6, 1e-5),
    "float16": (2**-10, 2**-7),
    "bfloat16": (2**-7, 2**-4),
}


def tolerances(setting: Setting) -> tuple[float, float]:
    """Those of the dtype; small temperatures make a rounded score count for more."""
    loss, gradient = TOLERANCES[setting.dtype]
    more = max(1.0, 0.1 / setting.temperature)
    return loss * more, gradient * more


def views(setting: Setting) -> list[np.ndarray]:
    """Two views of so many images, the same for every form and run, exact in the dtype.

    float32, or float64 where that is the dtype.
    """
    random = np.random.default_rng(0)
    images = setting.images
    shape = min(images, peers.DISTINCT), setting.columns
    distinct = [rounded(random.standard_normal(shape), setting.dtype) for _ in range(2)]
    return [np.tile(view, (copies(images), 1)) for view in distinct]


def rounded(view: np.ndarray, dtype: str) -> np.ndarray:
    """To what the dtype can hold; bfloat16 is the first half of a float32."""
    if dtype == "float64":
        return view
    if dtype == "float16":
        return view.astype(np.float16).astype(np.float32)
    single = view.astype(np.float32)
    if dtype == "bfloat16":
        return (single.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return single


def copies(images: int) -> int:
    """How often each distinct image is there."""
    if images > peers.DISTINCT and images % peers.DISTINCT:
        msg = f"more than {peers.DISTINCT} images must be a multiple of it; got {images}"
        raise ValueError(msg)
    return max(1, images // peers.DISTINCT)


def errors(
    setting: Setting, loss: float, gradients: list[np.ndarray] | None
) -> dict[str, float | str]:
    """Errors of loss and gradient, and "failed" if they are too large to be compared."""
    wanted_loss, wanted = reference(setting)
    limit, gradient_limit = tolerances(setting)
    found = {"loss_error": abs(loss - wanted_loss) / wanted_loss}
    right = found["loss_error"] <= limit  # not `>`: a NaN must fail
    if gradients is not None:
        found["gradient_error"] = gradient_error(gradients, wanted)
        right = right and found["gradient_error"] <= gradient_limit
    if right:
        return {**found}
    off = ", ".join(f"{name.split('_')[0]} by {value:.1e}" for name, value in found.items())
    return {**found, "failed": f"wrong: off in {off}"}


def gradient_error(gradients: list[np.ndarray], wanted: np.ndarray) -> float:
    """Relative to the largest entry; by copies: at once it would need all of it in float64."""
    distinct = len(wanted) // 2
    halves = wanted.reshape(2, distinct, -1)
    found = np.stack(gradients).reshape(2, -1, distinct, wanted.shape[1])
    differences = [np.abs(found[:, copy] - halves).max() for copy in range(found.shape[1])]
    return float(max(differences) / np.abs(wanted).max())


def reference(setting: Setting) -> tuple[float, np.ndarray]:
    """Loss, and gradient of one copy of each image, by the closed form.

    With c copies a row meets each other row c times; in a loss of one side its own c - 1 times.
    """
    x = np.concatenate([view[: peers.DISTINCT] for view in views(setting)]).astype(float)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    z = x / norms
    form = {"nt_xent": nt_xent, "sup_con": sup_con, "info_nce": info_nce, "clip": clip}
    value, dz = form[setting.loss](z, copies(setting.images), setting.temperature)
    return value, (dz - (dz * z).sum(1, keepdims=True) * z) / norms


def nt_xent(z: np.ndarray, count: int, tau: float) -> tuple[float, np.ndarray]:
    """The positive is the other view of the image."""
    partner = np.roll(z, len(z) // 2, axis=0)
    return one_side(z, partner, count, tau)


def sup_con(z: np.ndarray, count: int, tau: float) -> tuple[float, np.ndarray]:
    """The positives are all other rows of the class; their mean is what counts."""
    labels = np.tile(peers.labels_of(len(z) // 2), 2)
    same = (labels[:, None] == labels).astype(float)
    positives = count * same.sum(1, keepdims=True) - 1
    return one_side(z, (count * (same @ z) - z) / positives, count, tau)


def one_side(
    z: np.ndarray, positive: np.ndarray, count: int, tau: float
) -> tuple[float, np.ndarray]:
    """Rows against all others; a row is as often the positive of others as they are its own."""
    e = np.exp(z @ z.T / tau)
    itself = e.diagonal().copy()
    np.fill_diagonal(e, 0)  # left in and taken off again it would take all digits along
    total = count * e.sum(1) + (count - 1) * itself
    loss = float(np.mean(np.log(total) - (z * positive).sum(1) / tau))
    e *= 1 / total[:, None] + 1 / total
    dz = count * (e @ z) + ((count - 1) * 2 * itself / total)[:, None] * z - 2 * positive
    return loss, dz / (len(z) * count * tau)


def clip(z: np.ndarray, count: int, tau: float) -> tuple[float, np.ndarray]:
    """The mean of both directions."""
    forward, grad = info_nce(z, count, tau)
    backward, turned = info_nce(np.roll(z, len(z) // 2, axis=0), count, tau)
    return (forward + backward) / 2, (grad + np.roll(turned, len(z) // 2, axis=0)) / 2


def info_nce(z: np.ndarray, count: int, tau: float) -> tuple[float, np.ndarray]:
    """The first half against the second."""
    q, k = np.split(z, 2)
    e = np.exp(q @ k.T / tau)
    total = count * e.sum(1)
    loss = float(np.mean(np.log(total) - (q * k).sum(1) / tau))
    e *= count / total[:, None]
    return loss, np.concatenate([e @ k - k, e.T @ q - q]) / (len(q) * count * tau)
