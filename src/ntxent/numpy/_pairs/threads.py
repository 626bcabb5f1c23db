"""The threads that NumPy's products have: as many as was asked for, or one inside a tile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from ntxent._pairs.sharing import Pool


class Blas:
    """The library behind `matmul`, whose number of threads is one setting for the whole process."""

    def __init__(self) -> None:
        self.begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.restore)

    def begin(self) -> None:
        """Nobody asks for one thread."""
        self.lock = threading.Lock()
        self.users = self.asked = 0
        self.before: list[int] = []

    @cached_property
    def libraries(self) -> Any:
        """NumPy's own, or all if it has none; found once, as that takes longer than a small batch.

        Other packages bring others, whose numbers of threads are none of NumPy's.
        """
        every = ThreadpoolController().select(user_api="blas")
        paths = [library.filepath for library in every.lib_controllers]
        own = [path for path in paths if "numpy" in path]
        return every.select(filepath=own) if own else every

    def threads(self) -> int:
        """As many as the user asked for, or as there are cores if NumPy's library can't say."""
        with self.lock:
            return self.asked if self.users else self.current()

    def current(self) -> int:
        """As many as there are now."""
        found = self.numbers()
        if hasattr(os, "sched_getaffinity"):
            return max(found, default=len(os.sched_getaffinity(0)))
        return max(found, default=os.cpu_count() or 1)

    def numbers(self) -> list[int]:
        """Of each library."""
        return [library.num_threads for library in self.libraries.lib_controllers]

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """One for as long as anybody is here, then as many as before the first came."""
        came = False
        try:
            with self.lock:
                if not self.users:
                    self.asked, self.before = self.current(), self.numbers()
                self.users, came = self.users + 1, True
                if self.users == 1:
                    self.set([1] * len(self.before))
            yield
        finally:
            if came:
                with self.lock:
                    self.users -= 1
                    if not self.users:
                        self.set(self.before)

    def set(self, numbers: Sequence[int]) -> None:
        """Each library's number, by whichever thread asks.

        Since threadpoolctl 3.8 the first to set OpenBLAS' alone can do so, as long as it lives.
        """
        for library, number in zip(self.libraries.lib_controllers, numbers, strict=True):
            release = getattr(library, "clear_controlling_thread", lambda **_: None)
            release(force=True)
            library.set_num_threads(number)
            release(force=True)

    def restore(self) -> None:
        """In a forked process, which has none of the threads that asked."""
        if self.users:
            self.set(self.before)
        self.begin()


BLAS = Blas()
POOL = Pool(lambda: np.seterr(all="ignore"))  # as around the loss: the setting is a thread's own
