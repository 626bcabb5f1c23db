"""The commands in the pages name sessions, scripts and modules that there are.

python docs/checks/commands.py     asks nox for its sessions
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator

from blocks import ROOT, pages

SESSION = re.compile(r"(?:noxfile\.py|nox(?: --no-venv)?) -s (?:\"([^\"]+)\"|([\w-]+))")
SCRIPT = re.compile(r"(?:python3?|torchrun[^`\n]*?) ((?:[\w-]+/)*[\w-]+\.py)\b")
MODULE = re.compile(r"python3? -m ((?:ntxent|benchmarks)[\w.]*\w)")


def sessions() -> set[str]:
    """All that `-s` takes."""
    command = [sys.executable, "-m", "nox", "--list", "-f", str(ROOT / "noxfile.py")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^[-*] (\S+)", listed, re.MULTILINE)
    return {*names, *(name.partition("(")[0] for name in names)}


def faults(text: str, known: set[str]) -> Iterator[str]:
    """What a page names that isn't there."""
    for quoted, plain in SESSION.findall(text):
        if (quoted or plain) not in known:
            yield f"no nox session {quoted or plain}"
    for script in SCRIPT.findall(text):
        if not (ROOT / script).exists():
            yield f"no script {script}"
    for module in MODULE.findall(text):
        if importlib.util.find_spec(module) is None:
            yield f"no module {module}"


def main() -> int:
    """Print what is wrong; how much is."""
    sys.path.insert(0, str(ROOT))  # where `benchmarks` lies
    known, wrong, count = sessions(), 0, 0
    for page in pages():
        text = page.read_text()
        count += sum(len(pattern.findall(text)) for pattern in (SESSION, SCRIPT, MODULE))
        for fault in faults(text, known):
            print(f"{page.relative_to(ROOT)}: {fault}")
            wrong += 1
    print(f"{count} commands, {wrong} of them name what isn't there")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
