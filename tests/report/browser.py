"""A headless Chromium that is spoken to over pipes, by its own protocol: no driver, no further package."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking")


class Browser:
    """One page at a time."""

    def __init__(self):
        with contextlib.ExitStack() as stack:
            profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            theirs_in, self._out = os.pipe()
            self._in, theirs_out = os.pipe()
            # Chromium reads at descriptor 3 and writes at 4.
            command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
            arguments = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
            self._process = subprocess.Popen(
                ["bash", "-c", command, *arguments], pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            os.close(theirs_in)
            os.close(theirs_out)
            stack.callback(self._process.wait)
            stack.callback(self._process.kill)
            stack.callback(os.close, self._in)
            stack.callback(os.close, self._out)
            self._stack = stack.pop_all()
        self._rest, self._count, self._session = b"", 0, None
        self.messages, self.asked = [], []
        """Since the page was opened: errors of console, scripts and policy; and what was asked of disk or network."""
        target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stack.close()

    def open(self, path: Path, width: int, height: int = 900):
        """Opens a file at a width in CSS pixels, as a phone does below 600, and waits until its plots are drawn."""
        self.messages, self.asked = [], []
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        for url in ("about:blank", path.resolve().as_uri()):
            self._call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.documentElement?.dataset.ready === 'yes'")

    def wait(self, condition: str):
        """Waits until a JavaScript expression is true."""
        until = time.monotonic() + 120  # against hanging, not slowness
        while not self.evaluate(condition):
            assert time.monotonic() < until, f"{condition} doesn't come; said: {self.messages}"
            time.sleep(0.05)

    def evaluate(self, expression: str):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, grey: bool = False):
        """The whole page as a PNG."""
        if grey:
            self.evaluate("document.documentElement.style.filter = 'grayscale(1)'")
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        picture = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1})
        path.write_bytes(base64.b64decode(picture["data"]))

    def _call(self, method: str, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self._note(answer.get("method"), answer.get("params", {}))
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def _note(self, method, params):
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.messages.append([part.get("value", part.get("description")) for part in params["args"]])
        elif method == "Runtime.exceptionThrown":
            self.messages.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.messages.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])

    def _read(self):
        while b"\0" not in self._rest:
            if not (more := os.read(self._in, 1 << 20)):
                raise AssertionError("the browser has ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)
