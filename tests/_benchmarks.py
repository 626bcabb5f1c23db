"""What the scripts beside the tests share with `benchmarks`.

A script finds what lies in its own folder, and `benchmarks` doesn't.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import marks
from benchmarks.world import world

__all__ = ["marks", "world"]
