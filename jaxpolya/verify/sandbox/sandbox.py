"""Running one untrusted Python program at a time, out of reach of everything that matters. Linux only.

Three parties. `Sandbox` (here, in the judge's process) owns deadlines and looks at values. The launcher (`jail.py`, trusted) builds the
cage once and starts and stops programs in it. The program runs behind `candidate.py` in a fresh `python -I -S` process with an
empty environment, and is spoken to on a socket of its own. What it says is decoded into exact built-in types, so that no method of an
object that it made is ever called here.

How strong the cage is depends on the kernel; the strongest level that works is taken, and `weakness` says what is missing.
"""

import contextlib
import os
import py_compile
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from jaxpolya.errors import ConfigError, MachineError
from jaxpolya.verify.sandbox.packages import locate
from jaxpolya.verify.sandbox.wire import MAX_BYTES, WireError, decode, encode

Level = Literal["namespaces", "user", "limits"]
LEVELS: tuple[Level, ...] = ("namespaces", "user", "limits")
"""From strong to weak, see `jail`."""
WEAKNESS: dict[Level, str | None] = {
    "namespaces": None,
    "user": "programs run without namespaces, under another user id: they can reach the network and read what everyone may read",
    "limits": "programs run without namespaces, with this user's rights: they can reach the network and this user's files",
}
START_LIMIT = 30.0
"""Seconds for the launcher to start, or to start or stop a program."""
TIMED_OUT = "the launcher is silent"


class SandboxError(Exception):
    """The sandbox itself does not work here."""


class Ended(BaseException):
    """The program can't answer any more. Not an `Exception`, so that a test can't mistake it for one that the program raised."""


class Late(Ended):
    """It has used up its time."""


class Died(Ended):
    """Its process is gone, or answers nonsense."""


class Program:
    """A running program."""

    def __init__(self, control: socket.socket, end: float, wait: Callable[[float], int | None]):
        self._control, self._end, self._wait = control, end, wait
        self.ended: Ended | None = None
        """Why the program can't answer any more."""

    def load(self, variants: Sequence[str], *, as_script: bool = False) -> tuple[str, str]:
        """Runs the first of the variants that compiles: as a module, or (`as_script`) as a program of its own, see `finish`.

        Returns ("loaded", ""), ("syntax", complaint), or ("raised", what). Raises `Ended`.
        """
        self.say(encode((as_script, list(variants))))
        match self._reply():
            case ("loaded",):
                return "loaded", ""
            case ("syntax", str() as complaint):
                return "syntax", complaint
            case ("error", str() as name, str() as message):
                return "raised", f"{name}: {message}".removesuffix(": ")
        raise self.end_with(Died("nonsense instead of an answer"))

    def finish(self) -> tuple[int, str]:
        """Waits for the end of a program of its own: (its exit status, what it complained of). Raises `Ended`, and `SandboxError`."""
        status = self._wait(max(self._end - time.monotonic(), 0.01))
        if status is None:
            raise self.end_with(Late("the deadline has passed"))
        if status < 0:
            name = signal.Signals(-status).name
            raise self.end_with(Late("it has used up its time") if name == "SIGXCPU" else Died(f"the process was ended by {name}"))
        complaint = ""
        if status:
            with contextlib.suppress(Ended):
                self._end = time.monotonic() + 1  # what is there is there
                match self._reply():
                    case ("error", str() as name, str() as message):
                        complaint = f"{name}: {message}"
        return status, complaint

    def say(self, data: bytes) -> None:
        """Sends the program a frame. Raises `Ended`."""
        with self._ending():
            view = memoryview(len(data).to_bytes(4, "big") + data)
            while view:
                self._control.settimeout(self._left())
                view = view[self._control.send(view) :]

    def hear(self) -> bytes:
        """The program's next frame. Raises `Ended`."""
        with self._ending():
            size = int.from_bytes(self._receive(4), "big")
            if size > MAX_BYTES:
                raise Died("an answer that is too long")
            return self._receive(size)

    def end_with(self, ended: Ended) -> Ended:
        """Gives up on the program; returns the reason, to be raised."""
        self.ended = ended
        return ended

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        if self.ended:
            raise self.ended
        try:
            yield
        except TimeoutError:
            raise self.end_with(Late("the deadline has passed")) from None
        except OSError as error:
            raise self.end_with(Died(str(error))) from None
        except Died as died:
            raise self.end_with(died) from None

    def _reply(self) -> Any:
        try:
            return decode(self.hear())
        except WireError as error:
            raise self.end_with(Died(str(error))) from None

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            self._control.settimeout(self._left())
            part = self._control.recv(min(count - len(data), 1 << 20))
            if not part:
                raise Died("the process ended")
            data += part
        return bytes(data)

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def machine_weakness(modules: Sequence[str] = ()) -> str | None:
    """What the sandbox does not protect from on this machine, or None.

    Raises `MachineError` where no program can be run, and `ConfigError` where one can't import some of the modules that it should.
    """
    try:
        with Sandbox(modules=modules) as sandbox:
            for module in modules:
                with sandbox.program(START_LIMIT) as program:
                    outcome, complaint = program.load([f"import {module}"])
                    if outcome != "loaded":
                        raise ConfigError(f"verify.code.modules: a program can't import {module} here: {complaint}")
            return sandbox.weakness
    except Ended as error:
        raise ConfigError(f"verify.code.modules: programs can't import {', '.join(modules)} here: {error}") from None
    except SandboxError as error:
        raise MachineError(f"code can't be verified on this machine: {error}") from None


class Sandbox:
    """One launcher, and so one program at a time. Not for several threads at once. A context manager."""

    def __init__(self, level: Level | None = None, memory_mb: int = 1024, modules: Sequence[str] = ()):
        """Starts the launcher at a level, by default at the strongest that works.

        memory_mb: address space of a program in MiB. modules: third-party modules that it may import. Raises `SandboxError` where no level
        works, and `ConfigError` for a module that isn't installed.
        """
        self._memory_mb = memory_mb
        self._packages = [f"{name}={path}" for name, path in locate(modules).items()]
        self._child: subprocess.Popen[bytes] | None = None
        complaints = []
        for self.level in (level,) if level else LEVELS:
            try:
                self._start()
                with self.program(START_LIMIT) as program:
                    if program.load(["import builtins"])[0] == "loaded":
                        break
                    complaints.append(f"{self.level}: a program can't run")
            except (SandboxError, Ended) as error:
                complaints.append(f"{self.level}: {error}")
            self.close()
        else:
            raise SandboxError(f"no program can be run ({'; '.join(complaints)})")
        missing = [WEAKNESS[self.level], None if self._bounded else "as root, programs can start any number of processes"]
        weakness = "; ".join(filter(None, missing))
        reasons = f" ({'; '.join(complaints)})" if complaints else ""
        self.weakness = f"the sandbox is degraded: {weakness}{reasons}" if weakness else None
        """What this level does not protect from, or None."""

    @contextlib.contextmanager
    def program(self, seconds: float, stdin: bytes = b"", stdout: IO[bytes] | None = None) -> Iterator[Program]:
        """A fresh process for one program, which is gone, with all that it has started, when the context ends.

        seconds: its life. stdin: what it can read. stdout: a real file for what it prints. Raises `SandboxError`.
        """
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._start()
        control, theirs = socket.socketpair()
        with control, theirs, tempfile.TemporaryFile(buffering=0) if stdin else open(os.devnull, "r+b", buffering=0) as given:
            if stdin:
                given.write(stdin)
                given.seek(0)
            descriptors = [theirs.fileno(), given.fileno(), (stdout or given).fileno()]
            answer = self._order(f"start {int(seconds) + 2}", descriptors)  # of CPU; the deadline comes first
            theirs.close()
            if answer != "started":
                raise SandboxError(f"a program could not be started: {answer}")
            try:
                yield Program(control, time.monotonic() + seconds, self._wait)
            finally:
                if self._order("stop").startswith("ended"):  # the launcher's last word on a program that was late
                    self._answer()

    def _wait(self, seconds: float) -> int | None:
        """The exit status of the program, negative for a signal; None where it is still running after some seconds."""
        try:
            self._socket.settimeout(seconds)
            answer = self._order("wait")
        finally:
            self._socket.settimeout(START_LIMIT)
        if answer.startswith("ended "):
            return int(answer.split()[1])
        if answer == TIMED_OUT:
            return None
        raise SandboxError(f"a program could not be waited for: {answer}")

    def close(self) -> None:
        """Ends the launcher and the program that it may be running."""
        if self._child:
            self._socket.close()
            try:
                self._child.wait(START_LIMIT)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None
            shutil.rmtree(self._folder, ignore_errors=True)  # where this process is killed, the launcher does it

    def _start(self) -> None:
        if not sys.platform.startswith("linux"):
            raise SandboxError("code can be verified on Linux only")
        here = Path(__file__).resolve().parent
        with contextlib.ExitStack() as undo:
            try:
                self._folder = folder = tempfile.mkdtemp(prefix="jaxpolya-")
                undo.callback(shutil.rmtree, folder, ignore_errors=True)
                os.chmod(folder, 0o711)  # at the level `user` another user runs what lies there
                script = Path(folder, "runner.py")
                script.write_text("".join((here / name).read_text() for name in ("wire.py", "server.py", "candidate.py")))
                runner = py_compile.compile(str(script), f"{folder}/runner.pyc", doraise=True)
                self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(self._socket.close)
                self._socket.settimeout(START_LIMIT)
                command = [sys.executable, "-I", "-S", here / "jail.py", theirs.fileno(), self.level, os.path.realpath(sys.executable)]
                command += [runner, folder, self._memory_mb, *sorted({sys.base_prefix, sys.base_exec_prefix}), *self._packages]
                with theirs:
                    # A session of its own: the group that the pool kills with this process must leave the launcher its last duty.
                    self._child = subprocess.Popen(
                        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()], start_new_session=True, env={},
                    )  # fmt: skip
            except OSError as error:
                raise SandboxError(f"its launcher does not start: {error}") from None
            answer = self._answer()
            self._bounded = answer == "ready"
            if not answer.startswith("ready"):
                self.close()
                raise SandboxError(answer)
            undo.pop_all()

    def _order(self, order: str, descriptors: Sequence[int] = ()) -> str:
        try:
            socket.send_fds(self._socket, [order.encode()], descriptors)
        except OSError as error:
            return str(error)
        return self._answer()

    def _answer(self) -> str:
        try:
            return self._socket.recv(1000).decode(errors="replace") or "the launcher died"
        except TimeoutError:
            return TIMED_OUT
        except OSError as error:
            return str(error) or type(error).__name__

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
