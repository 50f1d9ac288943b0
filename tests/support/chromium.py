"""Drive a headless Chromium through its DevTools pipe, for keys, colour schemes and print."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HEADLESS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update", "--disable-quic"),
]
ANSWER_TIMEOUT_S = 120.0
KEY_TEXT = {"Enter": "\r", " ": " "}
KEY_CODES = {"Tab": 9, "Enter": 13, " ": 32}


class Tab:
    """Hold one page of a running browser."""

    def __init__(self, pipe: socket.socket, url: str, width_px: int, height_px: int) -> None:
        """Open `url` in a window of this size and wait until its script has run."""
        self._pipe, self._received = pipe, pipe.makefile("rb")
        self._ids, self._session = itertools.count(1), {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.resize(width_px, height_px)
        self.call("Page.navigate", url=url)
        self.wait_for("globalThis.tunePage")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of a DevTools command; an error it reports fails the test."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params, **self._session}
        self._pipe.sendall(json.dumps(message).encode() + b"\0")
        while (answer := self._next_message()).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, or of the promise that it gives."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return when `condition` is true in the page."""
        looks = f"const look = () => {{ try {{ if ({condition}) return done(); }} catch {{}}"
        self.evaluate(f"new Promise((done) => {{ {looks} setTimeout(look, 20); }}; look(); }})")

    def resize(self, width_px: int, height_px: int) -> None:
        """Give the window another size."""
        size = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def emulate(self, *, media: str = "screen", dark: bool = False) -> None:
        """Show the page as on this medium, in this colour scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def press(self, key: str) -> None:
        """Press and release a key as a person does."""
        named = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEY_CODES[key]}
        typed = {"text": KEY_TEXT[key]} if key in KEY_TEXT else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def _next_message(self) -> dict[str, Any]:
        """Return the next message of the browser, which ends with a zero byte."""
        parts = bytearray()
        while (byte := self._received.read(1)) != b"\0":
            assert byte, "the browser ended"
            parts += byte
        message: dict[str, Any] = json.loads(parts)
        return message


@contextmanager
def opened(page: Path, profile: Path, width_px: int = 1280, height_px: int = 800) -> Iterator[Tab]:
    """Yield the page in a browser of its own, which ends with the block."""
    ours, theirs = socket.socketpair()
    ours.settimeout(ANSWER_TIMEOUT_S)
    pipe = f'exec "$@" 3<&{theirs.fileno()} 4>&{theirs.fileno()}'
    flags = [*HEADLESS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    command = ["bash", "-c", pipe, "bash", str(CHROMIUM), *flags]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL) as browser:
        theirs.close()
        try:
            yield Tab(ours, page.as_uri(), width_px, height_px)
        finally:
            browser.terminate()
