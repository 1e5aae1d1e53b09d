"""Headless Chromium by its DevTools protocol over a pipe: messages are JSON, each ended by a zero byte."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """The browser's program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page."""

    def __init__(self, sink: Any, source: Any) -> None:
        self._sink, self._source, self._next, self._session = sink, source, 0, None
        self.messages: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Calls a method, and gives its result."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._sink.write(json.dumps(message).encode() + b"\0")
        self._sink.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> Any:
        parts = []
        while (byte := self._source.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser has ended")
            parts.append(byte)
        event = json.loads(b"".join(parts))
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(json.dumps(event["params"]))
        return event

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} is still {value!r}; the browser says {self.messages}")
            time.sleep(0.05)
        return value

    def choose_file(self, selector: str, path: Path) -> None:
        """Picks a file in an input, as the file dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def drop_file(self, selector: str, path: Path) -> None:
        """Drags a file from outside onto an element."""
        x, y = self.run(
            f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Shows the page as on a screen of that size, in light or dark colours, or as on a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[colours])
        # Two frames: one to lay it out, one in which its scripts have seen that.
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str, code: int, text: str = "", shift: bool = False) -> None:
        """Presses a key, as a person does."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        """Writes a PNG of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        made = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(made["data"]))


@contextmanager
def browsing(program: str, folder: Path) -> Iterator[Page]:
    """A page in a browser of its own, without a window."""
    to_browser, from_browser = os.pipe(), os.pipe()
    # The browser reads its file 3 and writes its file 4.
    command = (
        f'exec 3<&{to_browser[0]} 4>&{from_browser[1]}; exec "$0" --headless=new --no-sandbox --disable-gpu '
        '--disable-dev-shm-usage --no-first-run --window-size=1200,1000 --remote-debugging-pipe --user-data-dir="$1"'
    )
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command, program, str(folder / "profile")],
            pass_fds=(to_browser[0], from_browser[1]), stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
        os.close(to_browser[0])
        os.close(from_browser[1])
        with os.fdopen(to_browser[1], "wb") as sink, os.fdopen(from_browser[0], "rb") as source:
            try:
                yield Page(sink, source)
            finally:
                process.terminate()
                process.wait(timeout=30)
