"""Every loss of PyTorch by a name, with small inputs, to try the same on all of them."""

from __future__ import annotations

from typing import Any

LOSSES = (
    "nt_xent",
    "nt_xent, three views, ids",
    "nt_xent, as they are",
    "sup_con",
    "sup_con, as they are",
    "info_nce, as they are",
    "info_nce, queue",
    "info_nce, symmetric, queue, ids",
    "info_nce, own negatives",
)


IMPLEMENTATIONS = ("dense", "tiled", "tiles of 4", "tiles of 4, kept")


def chosen(name: str, monkeypatch: Any) -> str:
    """The `implementation` to ask for, with tiles that the batches here have several of."""
    from ntxent.torch._pairs import tiled

    if not name.startswith("tiles"):
        return name
    monkeypatch.setattr(tiled, "TILE", 4)
    monkeypatch.setattr(tiled, "KEEP_BYTES", 2 * 4 * 4 * 8 if name.endswith("kept") else 0)
    return "tiled"


def given(torch: Any, name: str, dtype: str = "float64") -> dict[str, Any]:
    """Fresh inputs of a loss by their names, all floats as leaves."""
    rng = torch.Generator().manual_seed(len(name))

    def rows(*shape: int) -> Any:
        return torch.randn(*shape, generator=rng).to(getattr(torch, dtype)).requires_grad_()

    temperature = torch.tensor(0.3, dtype=getattr(torch, dtype)).requires_grad_()
    found = {"z1": rows(6, 3), "temperature": temperature}
    if name.startswith("sup_con"):
        return {**found, "labels": torch.tensor([0, 0, 1, 2, 1, 0])}
    found["z2"] = rows(6, 3)
    if "three" in name:
        found["z3"] = rows(6, 3)
    if "own" in name:
        found["negatives"] = rows(6, 2, 3)
    if "queue" in name:
        found["negatives"] = rows(5, 3)
    if "ids" in name:
        size = 6 + (5 if "queue" in name else 0)
        found["ids"] = torch.arange(size) // 2
    return found


def loss_of(name: str, inputs: dict[str, Any], **options: Any) -> Any:
    """The loss of those inputs."""
    from ntxent import torch as losses

    arrays = [x for key, x in inputs.items() if key not in ("temperature", "ids")]
    options["temperature"] = inputs["temperature"]
    if "ids" in inputs:
        options["ids"] = inputs["ids"]
    if "as they are" in name:
        options["normalize"] = False
    if "symmetric" in name:
        options["symmetric"] = True
    return getattr(losses, name.split(",", 1)[0])(*arrays, **options)


def leaves_of(inputs: dict[str, Any]) -> list[Any]:
    return [x for x in inputs.values() if x.requires_grad]


def change(torch: Any, *tensors: Any) -> None:
    """In place, whatever is needed of them."""
    with torch.no_grad():
        for x in tensors:
            x.zero_()


def in_inference_mode(torch: Any, inputs: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The same inputs, those of these names made in inference mode."""
    with torch.inference_mode():
        made = {key: inputs[key].detach().clone() for key in names}
    return {key: made.get(key, x) for key, x in inputs.items()}
