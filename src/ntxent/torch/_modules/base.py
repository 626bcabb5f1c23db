"""What the modules of the losses share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntxent._checks import arguments
from ntxent.torch._operations.backend import OPS


class Loss(torch.nn.Module):
    """What the modules share: a temperature, fixed or learned, and the options of the function."""

    log_temperature: torch.nn.Parameter | None

    def __init__(
        self, temperature: float, learn_temperature: bool, options: dict[str, Any]
    ) -> None:
        super().__init__()
        arguments.check_number(temperature)
        denominator = options.get("denominator", "all")
        arguments.check_choices(OPS, denominator, options["reduction"], options["implementation"])
        switches = {name: options[name] for name in ("normalize", "symmetric") if name in options}
        arguments.check_switches(learn_temperature=learn_temperature, **switches)
        arguments.check_exchange(options["exchange"])
        self._temperature = float(temperature)  # the fixed one, or where learning starts
        # Of shape (1,), as FSDP takes no 0-d parameter.
        start = torch.tensor([math.log(self._temperature)])
        self.log_temperature = torch.nn.Parameter(start) if learn_temperature else None
        self.options = options

    @property
    def temperature(self) -> float | Tensor:
        """The temperature in use, a 0-d tensor if it is learned.

        A number may be assigned to it, at any time: a fixed temperature changes, and a learned one
        goes on from there. Sharded by `fully_shard` a learned one is whole in the forward pass
        alone: elsewhere it is a DTensor of shape (1,), and `temperature.full_tensor()` a tensor.
        """
        if self.log_temperature is None:
            return self._temperature
        temperature = self.log_temperature.exp()
        return temperature if hasattr(temperature, "full_tensor") else temperature.reshape(())

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        arguments.check_number(temperature)
        if self.log_temperature is None:
            self._temperature = float(temperature)
        else:
            with torch.no_grad():
                self.log_temperature.fill_(math.log(temperature))

    def _refuse_fixed_temperature(self, value: Any) -> None:
        msg = (
            f"{type(self).__name__} has no fixed_temperature; assign to temperature, "
            f"as in criterion.temperature = {value!r}, whether it is fixed or learned."
        )
        raise AttributeError(msg)

    # Assigned to, it would be one more attribute that nothing reads.
    fixed_temperature = property(fset=_refuse_fixed_temperature)

    def reset_parameters(self) -> None:
        """Let a learned temperature start again, as after `to_empty`; a fixed one stays.

        Returns
        -------
        None
        """
        if self.log_temperature is not None:
            self.temperature = self._temperature

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As it was pickled, by this version or before `fixed_temperature` got its new name."""
        names = {"fixed_temperature": "_temperature"}
        renamed = {names.get(name, name): value for name, value in state.items()}
        super().__setstate__(renamed)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Also from where the logarithm was saved 0-d."""
        name = f"{prefix}log_temperature"
        own: Any = self.log_temperature
        saved: Any = state_dict.get(name)
        if {tuple(x.shape) for x in (own, saved) if isinstance(x, Tensor)} == {(), (1,)}:
            state_dict[name] = saved.reshape(own.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """What differs between two of these modules, for `repr`.

        Returns
        -------
        str
            The temperature and the options of the formula.
        """
        shown = f"{self._temperature:.4g}"
        if self.log_temperature is not None:
            at_hand = holds_a_number(self.log_temperature)
            learned = self.log_temperature.exp().item() if at_hand else None
            shown = f"learned, from {shown}" if learned is None else f"{learned:.4g} (learned)"
        unsaid = ("implementation", "group", "exchange")
        given = {name: x for name, x in self.options.items() if name not in unsaid}
        return ", ".join([f"temperature={shown}", *(f"{name}={x!r}" for name, x in given.items())])


def holds_a_number(x: Tensor) -> bool:
    """Whether the value can be read: not on the meta device, nor of a shard that isn't here."""
    plain = type(x) in (torch.nn.Parameter, Tensor) and x.device.type != "meta"
    return plain and x.numel() == 1 and x.untyped_storage().nbytes() > 0
