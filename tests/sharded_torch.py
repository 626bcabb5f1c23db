"""What each process does in tests/test_torch_modules.py: a learned temperature under FSDP."""

from __future__ import annotations

from typing import Any

import torch

import trained_torch
from ntxent.torch import NTXentLoss


def learned(sizes: tuple[int, ...], group: Any) -> Any:
    """In one process: the mean loss and its gradients by name, of the shards or of all at once."""
    model = trained_torch.Trained()
    shards = [trained_torch.batch(rank, size) for rank, size in enumerate(sizes)]
    parts = [torch.cat(shards, 1)] if group else shards
    loss = sum(model(images) for images in parts) / len(parts)
    loss.backward()
    return loss.detach(), {name: x.grad for name, x in model.named_parameters()}


SHARDED = ("FSDP1", "FSDP1, flat", "FSDP2", "FSDP2, each")


def learned_by_fsdp(rank: int, sizes: tuple[int, ...]) -> dict[Any, Any]:
    """This process's loss and gradients put together again, by each FSDP, in a group or not."""
    return {
        (how, group): sharded_step(how, group, trained_torch.batch(rank, sizes[rank]))
        for how in SHARDED
        for group in (None, True)
    }


def sharded_step(how: str, group: Any, images: Any) -> Any:
    """The loss, and the gradients by name."""
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    model: Any = trained_torch.Trained(group=group)
    if how.startswith("FSDP2"):
        for part in (model.encoder, model.loss) if how.endswith("each") else ():
            fully_shard(part)
        fully_shard(model)
        loss = model(images)
        loss.backward()
        return loss.detach(), {name: x.grad.full_tensor() for name, x in model.named_parameters()}
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    cpu, by_name = torch.device("cpu"), how == "FSDP1"
    sharded = FullyShardedDataParallel(model, device_id=cpu, use_orig_params=by_name)
    loss = sharded(images)
    loss.backward()
    assert "temperature=" in repr(sharded)  # though it may be elsewhere
    torch.optim.SGD(sharded.parameters(), lr=1.0).step()  # flat ones have no gradients by name
    with FullyShardedDataParallel.summon_full_params(sharded):
        after = {name: x.detach() for name, x in model.named_parameters()}
        return loss.detach(), {name: x - after[name] for name, x in before.items()}


def sharded_temperature(rank: int) -> Any:
    """Made on the meta device and sharded: `repr`; begun, set and begun again; and saved."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    with torch.device("meta"):
        model = NTXentLoss(temperature=0.2, learn_temperature=True)
    fully_shard(model)
    model.to_empty(device="cpu")
    shown, values = repr(model), []
    for begin in (True, False, True):
        if begin:
            model.reset_parameters()
        else:
            model.temperature = 0.7
        values.append(model.temperature.full_tensor().item())
    saved = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    NTXentLoss(learn_temperature=True).load_state_dict(saved, strict=True)
    return shown, values, saved["log_temperature"].tolist()
