"""The forms that are compared: packages, what people paste, and ours. A file for each library.

Each factory imports its framework and returns a function (z1, z2, temperature) -> loss; for NumPy,
which has no autograd, -> (loss, gradients).
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

from benchmarks.peers import _jax, _numpy, _tensorflow, _torch, _torch_family
from benchmarks.peers._form import CLASSES, DISTINCT, Form, Loss, labels_of

__all__ = ["CLASSES", "DISTINCT", "FORMS", "Form", "form", "installed", "labels_of", "of"]

ALL = (*_torch.FORMS, *_torch_family.FORMS, *_numpy.FORMS, *_jax.FORMS, *_tensorflow.FORMS)
FORMS = {form.key: form for form in ALL}


def of(library: str, loss: str) -> tuple[str, ...]:
    """The keys of a library's forms of a loss."""
    wanted = library, loss
    return tuple(key for key, form in FORMS.items() if (form.library, form.loss) == wanted)


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def form(key: str) -> Form:
    """A form by its key; of ours also with constants: "torch.ntxent@TILE=256,KEEP_BYTES=0"."""
    base, _, constants = key.partition("@")
    found = FORMS[base]
    if not constants:
        return found

    def make() -> Loss:
        tiled = import_module(f"ntxent.{found.library}._pairs.tiled")
        for constant in constants.split(","):
            name, value = constant.split("=")
            if not hasattr(tiled, name):
                msg = f"{tiled.__name__} has no {name}"
                raise ValueError(msg)
            setattr(tiled, name, int(value))
        return found.make()

    return replace(found, name=f"{found.name}@{constants}", label=constants, make=make)
