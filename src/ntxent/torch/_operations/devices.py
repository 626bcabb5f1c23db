"""Which devices have float64."""

from __future__ import annotations

import torch


def has_float64(device: torch.device) -> bool:
    """Whether tensors there may be float64; Metal has none, and some Intel GPUs lack it."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"
