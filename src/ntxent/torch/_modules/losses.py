"""The losses as modules."""

from __future__ import annotations

from torch import Tensor
from torch.distributed import ProcessGroup

from ntxent._checks.keywords import named
from ntxent._spec import TEMPERATURE
from ntxent.torch._losses.info_nce import info_nce
from ntxent.torch._losses.nt_xent import nt_xent
from ntxent.torch._losses.sup_con import sup_con
from ntxent.torch._modules.base import Loss


class NTXentLoss(Loss):
    """`nt_xent` as a module, with the temperature fixed or learned.

    Parameters
    ----------
    temperature : float, default 0.1
        The temperature, or the one that learning starts from.
    learn_temperature : bool, default False
        Register `log_temperature`, of shape (1,), as a parameter: its exponential, always positive,
        is the temperature. It is saved in the state dict. Without it the module owns no parameter.
    denominator, normalize, reduction, implementation, group, exchange
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

    @named
    def __init__(
        self,
        *,
        temperature: float = TEMPERATURE,
        learn_temperature: bool = False,
        denominator: str = "all",
        normalize: bool = True,
        reduction: str = "mean",
        implementation: str | None = None,
        group: ProcessGroup | bool | None = None,
        exchange: str | None = None,
    ) -> None:
        options = {
            "denominator": denominator,
            "normalize": normalize,
            "reduction": reduction,
            "implementation": implementation,
            "group": group,
            "exchange": exchange,
        }
        super().__init__(temperature, learn_temperature, options)

    def forward(self, *views: Tensor, ids: Tensor | None = None) -> Tensor:
        """The loss of the views.

        Parameters
        ----------
        *views : Tensor, shape (N, d)
            Two or more.
        ids : Tensor of integers, shape (N,), optional
            As in `nt_xent`.

        Returns
        -------
        Tensor, shape () or (V N,) for "none"
            As `nt_xent` returns it.
        """
        return nt_xent(*views, temperature=self.temperature, ids=ids, **self.options)


class SupConLoss(Loss):
    """`sup_con` as a module, with the temperature fixed or learned.

    Parameters
    ----------
    temperature, learn_temperature
        As in `NTXentLoss`.
    normalize, reduction, implementation, group, exchange
        As in `sup_con`.

    Raises
    ------
    TypeError, ValueError
        For a temperature or a choice that `sup_con` refuses.

    Notes
    -----
    Formula, memory and time are those of `sup_con`. Views of an image are rows with its label:
    ``loss(torch.cat([z1, z2]), torch.cat([labels, labels]))``.

    Examples
    --------
    >>> import torch
    >>> from ntxent.torch import SupConLoss
    >>> loss = SupConLoss(temperature=0.5)
    >>> round(loss(torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1])).item(), 6)
    0.239545
    """

    @named
    def __init__(
        self,
        *,
        temperature: float = TEMPERATURE,
        learn_temperature: bool = False,
        normalize: bool = True,
        reduction: str = "mean",
        implementation: str | None = None,
        group: ProcessGroup | bool | None = None,
        exchange: str | None = None,
    ) -> None:
        options = {
            "normalize": normalize,
            "reduction": reduction,
            "implementation": implementation,
            "group": group,
            "exchange": exchange,
        }
        super().__init__(temperature, learn_temperature, options)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """The loss of the rows.

        Parameters
        ----------
        z : Tensor, shape (n, d)
            One row an image, or several.
        labels : Tensor of integers, shape (n,)
            As in `sup_con`.

        Returns
        -------
        Tensor, shape () or (n,) for "none"
            As `sup_con` returns it.
        """
        return sup_con(z, labels, temperature=self.temperature, **self.options)


class InfoNCELoss(Loss):
    """`info_nce` as a module, with the temperature fixed or learned.

    Parameters
    ----------
    temperature, learn_temperature
        As in `NTXentLoss`; CLIP learns it, from 0.07.
    symmetric, normalize, reduction, implementation, group, exchange
        As in `info_nce`.

    Raises
    ------
    TypeError, ValueError
        For a temperature or a choice that `info_nce` refuses.

    Notes
    -----
    Formula, memory and time are those of `info_nce`. The module keeps no queue: the caller does.

    Examples
    --------
    >>> import torch
    >>> from ntxent.torch import InfoNCELoss
    >>> loss = InfoNCELoss(temperature=0.5, symmetric=True)
    >>> round(loss(torch.eye(2), torch.eye(2)).item(), 6)
    0.126928
    """

    @named
    def __init__(
        self,
        *,
        temperature: float = TEMPERATURE,
        learn_temperature: bool = False,
        symmetric: bool = False,
        normalize: bool = True,
        reduction: str = "mean",
        implementation: str | None = None,
        group: ProcessGroup | bool | None = None,
        exchange: str | None = None,
    ) -> None:
        options = {
            "symmetric": symmetric,
            "normalize": normalize,
            "reduction": reduction,
            "implementation": implementation,
            "group": group,
            "exchange": exchange,
        }
        super().__init__(temperature, learn_temperature, options)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        negatives: Tensor | None = None,
        *,
        ids: Tensor | None = None,
    ) -> Tensor:
        """The loss of the pairs.

        Parameters
        ----------
        query, key : Tensor, shape (N, d)
            Row i of both is pair i.
        negatives, ids
            As in `info_nce`.

        Returns
        -------
        Tensor, shape () or (N,) for "none"
            As `info_nce` returns it.
        """
        return info_nce(
            query, key, negatives, temperature=self.temperature, ids=ids, **self.options
        )
