"""A page in headless Chromium, driven by the DevTools protocol as a person would: typed at, clicked, looked at."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
_KEYS = {"Enter": 13, "Escape": 27, "Tab": 9}


@dataclass
class Tab:
    """`complaints` are what the console said, and what of the page's own failed."""

    socket: ClientConnection
    complaints: list[str] = field(default_factory=list)
    _last: int = 0

    def ask(self, method: str, **params: Any) -> Any:
        self._last += 1
        self.socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            said = json.loads(self.socket.recv(timeout=60))
            self._hear(said)
            if said.get("id") == self._last:
                assert "error" not in said, said["error"]
                return said["result"]

    def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """What a script comes to; a promise is waited for."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, condition: str, seconds: float = 30.0) -> None:
        until = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < until, f"never: {condition}\n{self.run('document.body.innerText')}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """Where its middle is, as a mouse does."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"{place} && {place}.getClientRects().length")
        self.run(f"{place}.scrollIntoView({{block: 'center'}})")
        x, y = self.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({place}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        code = _KEYS[key]
        more = {"text": "\r"} if key == "Enter" else {}
        how: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **how, **more)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **how)

    def choose(self, selector: str, value: str) -> None:
        """An entry of a picker."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"[...{place}.options].some(each => each.value === {json.dumps(value)})")
        self.run(f"{place}.value = {json.dumps(value)}; {place}.dispatchEvent(new Event('change', {{bubbles: true}}))")

    def attach(self, selector: str, file: Path) -> None:
        """A file to an input."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def look(self, width: int, scheme: str = "light", height: int = 900) -> None:
        """Be a screen of this width that prefers light or dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme_ = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", features=scheme_)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        told = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def _hear(self, said: dict[str, Any]) -> None:
        method, params = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, as long as the block lasts."""
    command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            with connect(_address(profile), max_size=None) as socket:
                yield Tab(socket)
        finally:
            child.terminate()


def _address(profile: Path) -> str:
    """Where its first tab listens."""
    told, until = profile / "DevToolsActivePort", time.monotonic() + 30
    while not (told.exists() and told.read_text().count("\n")):
        assert time.monotonic() < until, "the browser does not start"
        time.sleep(0.05)
    port = told.read_text().split()[0]
    with urlopen(f"http://127.0.0.1:{port}/json/list") as response:
        tabs = json.load(response)
    return str(next(each["webSocketDebuggerUrl"] for each in tabs if each["type"] == "page"))
