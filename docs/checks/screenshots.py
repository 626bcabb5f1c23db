"""Pictures of the built pages in a real browser: a desktop's and a phone's width, light and dark.

python docs/checks/screenshots.py [PAGE ...]     to docs/_build/screenshots

It fails where a page is wider than its window, asks for anything that isn't in the build, or has an
error in its console. Chromium is found on the PATH, or named by CHROMIUM; it is spoken to by its
DevTools protocol through two pipes, for which the standard library is enough.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BUILT = Path(__file__).parents[1] / "_build/html"
PICTURES = BUILT.parent / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
PATIENCE = 60  # seconds
TALLEST = 16_000  # pixels; Chromium paints no taller picture
GENERATED = ("_modules", "genindex", "py-modindex", "search")  # Sphinx's own, not ours to write


class Browser:
    """Chromium without a window; `send` says one command and waits for its answer."""

    def __init__(self, program: str, profile: str) -> None:
        to_browser, self.writing = os.pipe()
        self.reading, from_browser = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        flags = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--hide-scrollbars"]
        command = ["bash", "-c", shell, "bash", program, *flags, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            command, pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self.rest = b""
        self.count = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []

    def receive(self) -> dict[str, Any]:
        """The next message; they end in a zero byte."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.reading], [], [], PATIENCE)
            if not ready:
                msg = f"the browser has said nothing for {PATIENCE} seconds"
                raise TimeoutError(msg)
            more = os.read(self.reading, 1 << 20)
            if not more:
                msg = "the browser has gone"
                raise RuntimeError(msg)
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Its result; events that come meanwhile are kept."""
        self.count += 1
        command = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.writing, json.dumps(command).encode() + b"\0")
        while (message := self.receive()).get("id") != self.count:
            self.events.append(message)
        if "error" in message:
            msg = f"{method}: {message['error']['message']}"
            raise RuntimeError(msg)
        result: dict[str, Any] = message["result"]
        return result

    def wait(self, method: str) -> None:
        """Until the event has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def value(self, expression: str) -> Any:
        """What JavaScript makes of it."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True)
        return found["result"].get("value")

    def open(self) -> None:
        """A tab, to which all further commands go."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")


def faults(browser: Browser, window: int) -> list[str]:
    """What a reader without a network, or with a small window, would miss."""
    found = []
    for event in browser.events:
        asked = event.get("params", {})
        url = asked.get("request", {}).get("url", "")
        if event.get("method") == "Network.requestWillBeSent" and not url.startswith(
            (BUILT.as_uri(), "data:")
        ):
            found.append(f"asks for {url}")
        if event.get("method") == "Log.entryAdded" and asked["entry"]["level"] == "error":
            found.append(asked["entry"]["text"])
        if event.get("method") == "Runtime.exceptionThrown":
            found.append(asked["exceptionDetails"]["exception"]["description"])
    if (wide := browser.value("document.documentElement.scrollWidth")) > window:
        found.append(f"is {wide} pixels wide in a window of {window}")
    return found


def photograph(browser: Browser, page: Path, device: str, scheme: str, picture: Path) -> list[str]:
    """Save the whole page; its faults."""
    width, height = WIDTHS[device]
    phone = device == "phone"
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    browser.send("Emulation.setDeviceMetricsOverride", **size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.send("Emulation.setEmulatedMedia", features=[feature])
    browser.events.clear()
    browser.send("Page.navigate", url=page.as_uri())
    browser.wait("Page.loadEventFired")
    browser.value("document.fonts.ready.then(() => true)")
    tall = min(browser.value("document.documentElement.scrollHeight"), TALLEST)
    clip = {"x": 0, "y": 0, "width": width, "height": tall, "scale": 1}
    taken = browser.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(base64.b64decode(taken["data"]))
    return faults(browser, width)


def main_pages() -> list[Path]:
    """The pages that have a source of ours."""
    built = sorted(page.relative_to(BUILT) for page in BUILT.rglob("*.html"))
    return [page for page in built if page.with_suffix("").parts[0] not in GENERATED]


def main(names: list[str]) -> int:
    """Take them all, or those named; the number of faults."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print(f"no browser: none of {', '.join(NAMES)} is on the PATH; set CHROMIUM to one")
        return 1
    pages = [Path(f"{name}.html") for name in names] or main_pages()
    if not pages:
        print(f"no pages in {BUILT}: build them first, nox -s docs")
        return 1
    count = 0
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(program, profile)
        browser.open()
        for page in pages:
            for device in WIDTHS:
                for scheme in SCHEMES:
                    picture = PICTURES / f"{page.with_suffix('')}-{device}-{scheme}.png"
                    for fault in photograph(browser, BUILT / page, device, scheme, picture):
                        print(f"{page}, {device}, {scheme}: {fault}")
                        count += 1
        browser.session = None
        browser.send("Browser.close")
        browser.process.wait()
    print(f"{len(pages) * len(WIDTHS) * len(SCHEMES)} pictures in {PICTURES}, {count} faults")
    return count


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
