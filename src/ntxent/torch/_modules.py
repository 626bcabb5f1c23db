"""The losses as modules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntxent import _spec
from ntxent.torch._losses import nt_xent
from ntxent.torch._ops import OPS


class NTXentLoss(torch.nn.Module):
    """`nt_xent` as a module, with the temperature fixed or learned.

    Parameters
    ----------
    temperature : float, default 0.1
        The temperature, or the one that learning starts from.
    learn_temperature : bool, default False
        Register `log_temperature` as a parameter: its exponential, always positive, is the
        temperature. It is saved in the state dict. Without it the module owns no parameter.
    denominator, normalize, reduction, implementation
        As in `nt_xent`.

    Raises
    ------
    TypeError, ValueError
        For a temperature or a choice that `nt_xent` refuses.

    Notes
    -----
    Formula, memory and time are those of `nt_xent`. To bound a learned temperature, as CLIP does
    with its 1/100, clamp the parameter after each optimiser step:
    ``loss.log_temperature.data.clamp_(min=math.log(0.01))``.

    Examples
    --------
    >>> import torch
    >>> from ntxent.torch import NTXentLoss
    >>> loss = NTXentLoss(temperature=0.5, learn_temperature=True)
    >>> z = torch.eye(4)
    >>> loss(z, z).backward()
    >>> loss.log_temperature.grad is not None
    True
    """

    log_temperature: torch.nn.Parameter | None

    def __init__(
        self,
        *,
        temperature: float = _spec.TEMPERATURE,
        learn_temperature: bool = False,
        denominator: str = "all",
        normalize: bool = True,
        reduction: str = "mean",
        implementation: str | None = None,
    ) -> None:
        super().__init__()
        _spec.check_number(temperature)
        _spec.check_choices(OPS, denominator, reduction, implementation)
        self.fixed_temperature = float(temperature)
        start = torch.tensor(math.log(self.fixed_temperature))
        self.log_temperature = torch.nn.Parameter(start) if learn_temperature else None
        self.denominator = denominator
        self.normalize = normalize
        self.reduction = reduction
        self.implementation = implementation

    @property
    def temperature(self) -> float | Tensor:
        """The temperature in use, a 0-d tensor if it is learned."""
        if self.log_temperature is None:
            return self.fixed_temperature
        return self.log_temperature.exp()

    def forward(self, *views: Tensor, ids: Tensor | None = None) -> Tensor:
        """The loss of the views, each of shape (N, d); see `nt_xent`."""
        return nt_xent(
            *views,
            temperature=self.temperature,
            ids=ids,
            denominator=self.denominator,
            normalize=self.normalize,
            reduction=self.reduction,
            implementation=self.implementation,
        )

    def extra_repr(self) -> str:
        """What differs between two of these modules, for `repr`."""
        temperature = self.temperature
        if isinstance(temperature, Tensor):
            temperature = f"{temperature.item():.4g} (learned)"  # type: ignore[assignment]
        return (
            f"temperature={temperature}, "
            f"denominator={self.denominator!r}, normalize={self.normalize}, "
            f"reduction={self.reduction!r}"
        )
