"""The number of BLAS' threads, which is one for the whole process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.only("numpy")

PROGRAM = """
import threading
from ntxent.numpy._pairs.threads import BLAS

before = BLAS.numbers()
BLAS.set([3] * len(before))
steps = [threading.Event() for _ in range(3)]
within = []

def first():
    with BLAS.one_thread():
        steps[0].set()
        steps[1].wait()
    steps[2].set()
    end.wait()

def second():
    steps[0].wait()
    with BLAS.one_thread():
        within.extend(BLAS.numbers())
        steps[1].set()
        steps[2].wait()
        within.extend(BLAS.numbers())
    left.set()
    end.wait()

end, left = threading.Event(), threading.Event()
threads = [threading.Thread(target=work) for work in (first, second)]
for thread in threads:
    thread.start()
left.wait()
print(set(within), set(BLAS.numbers()), BLAS.threads())
end.set()
"""


def test_the_last_of_two_living_threads_puts_it_back() -> None:
    """Whichever came first: threadpoolctl lets one thread alone set OpenBLAS' number."""
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )
    assert (done.stdout, done.stderr) == ("{1} {3} 3\n", "")
