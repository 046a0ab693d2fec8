"""The launcher: a small process that starts untrusted interpreters one at a time, and outlives them.

`python -I -S jail.py SOCKET LEVEL PYTHON RUNNER MEMORY_MB PREFIX…` is started by `sandbox.Sandbox`, trusted, free of threads and small,
so that forking it is cheap. What needs privileges is done here, once: the namespaces and a file system that holds a read-only
Python, a few devices, and nothing of this machine's. What a program needs for itself is made afresh for each: a PID namespace
whose init is ours, an empty `/tmp`, limits, and (as root) a user id without any rights. When the program is stopped its init
is killed and the kernel kills whatever lives in that namespace, so nothing can hide by leaving its group or its session.

Levels: `namespaces` is all of the above. `user` and `limits` are what is left where the kernel refuses namespaces: resource limits, a
temporary directory, and (`user`) another user id. There a stopped program's group is killed and its other descendants, which
all become children of this process (a sub-reaper), are killed until there are none. The network and the file system stay
within the program's reach then; `Sandbox.weakness` says so.

On the socket (which keeps messages apart) the judge sends `start SECONDS` with three descriptors (control, stdin, stdout), is answered
`started`, and sends `stop` when it has heard enough, answered `stopped` when nothing is left. When the judge is gone, so is
all of this.
"""

import contextlib
import ctypes
import os
import py_compile
import resource
import shutil
import signal
import socket
import sys
import tempfile

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_BIND, _REC, _PRIVATE, _NOSUID, _NODEV, _DETACH = 0x1000, 0x4000, 0x40000, 2, 4, 2
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 36, 38
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1
NOBODY = 58173
"""A user and group id that owns nothing. Unlike the customary 65534 it is nobody else's."""
LIMITS = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, 16 << 20),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_NPROC, 16),
)
SCRATCH = "size=32m,nr_inodes=4k,mode=700"


def main() -> None:
    """Serves one judge until it is gone."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    level, python, runner, memory_mb, *prefixes = sys.argv[2:]
    try:
        jail = Jail(level, python, int(memory_mb), runner, prefixes)
    except OSError as error:
        connection.send(f"failed {error}".encode())
        return
    connection.send(b"ready")
    with jail:
        while True:
            order, descriptors, _, _ = socket.recv_fds(connection, 100, 3)
            if not order:
                return
            try:
                child = jail.start(descriptors, int(order.split()[1]))
            except OSError as error:
                connection.send(f"failed {error}".encode())
                continue
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            with contextlib.suppress(OSError):  # a judge that is gone shows in the next recv
                connection.send(b"started")
                connection.recv(100)
            jail.stop(child)
            with contextlib.suppress(OSError):
                connection.send(b"stopped")


class Jail:
    """Where programs run. Raises `OSError` where this machine refuses the level."""

    def __init__(self, level: str, python: str, memory_mb: int, runner: str, prefixes: list[str]):
        self.isolated, self.other_user = level == "namespaces", level != "limits" and os.geteuid() == 0
        self.python, self.memory = python, memory_mb << 20
        self.folder: str | None = None
        _prctl(_SET_DUMPABLE, 0)
        _prctl(_SET_CHILD_SUBREAPER, 1)
        if level == "user" and not self.other_user:
            raise PermissionError("only root can become another user")
        if self.isolated:
            self.scratch = "/tmp"
            self._build(runner, [os.path.dirname(python), *prefixes])
            self.runner = "/runner.pyc"
        else:
            self.folder = tempfile.mkdtemp(prefix="jaxpolya-")
            os.chmod(self.folder, 0o711)
            self.runner = py_compile.compile(runner, os.path.join(self.folder, "runner.pyc"), doraise=True)
            os.chmod(self.runner, 0o644)
            self.scratch = os.path.join(self.folder, "scratch")

    def start(self, descriptors: list[int], seconds: int) -> int:
        """Starts a program; returns the process that everything of the program's lives and dies with."""
        if len(descriptors) != 3:
            raise OSError("three descriptors are needed")
        self._clear_scratch()
        if not self.isolated:
            if not (child := os.fork()):
                self._finish(self._run, descriptors, seconds)
            return child
        report, go = os.pipe(), os.pipe()
        if not (helper := os.fork()):
            self._finish(self._spawn_init, descriptors, seconds, report[1], go)
        os.close(report[1])
        os.close(go[0])
        text = os.read(report[0], 100).decode()  # one short write
        os.waitpid(helper, 0)
        os.close(report[0])
        if text.isdecimal():
            os.write(go[1], b"g")
        os.close(go[1])
        if not text.isdecimal():
            raise OSError(text or "the launcher's helper died")
        return int(text)

    def stop(self, child: int) -> None:
        """Kills and reaps a program with all that it has started."""
        os.kill(child, signal.SIGKILL)
        if not self.isolated:
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                if not self.isolated:  # orphans have become our children
                    for pid in _children():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)

    def _finish(self, work, *arguments) -> None:
        """Runs a forked child's part, which never returns to the launcher's own code."""
        try:
            work(*arguments)
        finally:
            os._exit(1)

    def _spawn_init(self, descriptors: list[int], seconds: int, report: int, go: tuple[int, int]) -> None:
        """In the helper: makes a PID namespace with its init, names it, and leaves, so that the init is the launcher's child."""
        try:
            _check(_LIBC.unshare(_NEWPID), "a PID namespace")
            if not (init := os.fork()):
                self._finish(self._init, descriptors, seconds, go)
        except OSError as error:
            os.write(report, str(error).encode()[:100])
            os._exit(1)
        os.write(report, str(init).encode())
        os._exit(0)

    def _init(self, descriptors: list[int], seconds: int, go: tuple[int, int]) -> None:
        """In the namespace's init: waits for the program to end; then, or when the launcher dies, everything dies."""
        os.close(go[1])
        if os.read(go[0], 1) != b"g":  # the launcher is our parent from here on
            return
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        if os.read(go[0], 1):  # end of file: it has closed its end, dead or not
            return
        self._drop()
        _LIBC.unshare(_NEWUSER)  # counts processes afresh and forbids further namespaces; without it the user id alone protects
        _prctl(_SET_DUMPABLE, 0)
        if not (program := os.fork()):
            self._finish(self._run, descriptors, seconds, False)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(program, 0)

    def _run(self, descriptors: list[int], seconds: int, drop: bool = True) -> None:
        """In the program's own process: limits, and a fresh interpreter."""
        os.setsid()
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir(self.scratch)
        if drop:
            self._drop()
        _prctl(_SET_NO_NEW_PRIVS, 1)
        high = [os.dup(descriptor) for descriptor in descriptors]
        null = os.open("/dev/null", os.O_WRONLY)
        for target, descriptor in enumerate([high[1], high[2], null, high[0]]):
            os.dup2(descriptor, target)
        for kind, limit in (*LIMITS, (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, self.memory)):
            hard = resource.getrlimit(kind)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (limit, limit))
        os.execve(self.python, [self.python, "-I", "-S", self.runner], {})

    def _drop(self) -> None:
        if self.other_user:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)

    def _clear_scratch(self) -> None:
        if self.isolated:
            _LIBC.umount2(b"/tmp", _DETACH)
            _mount("none", "/tmp", "tmpfs", _NOSUID | _NODEV, SCRATCH)
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)
            os.makedirs(self.scratch, mode=0o700, exist_ok=True)
        if self.other_user:
            os.chown(self.scratch, NOBODY, NOBODY)

    def _build(self, runner: str, prefixes: list[str]) -> None:
        """Namespaces, and a root that holds Python, its libraries, and nothing else."""
        user, group = os.geteuid(), os.getegid()
        _check(_LIBC.unshare(_NEWNS | _NEWNET | _NEWIPC | (0 if user == 0 else _NEWUSER)), "namespaces")
        if user:
            for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        _mount("none", "/", None, _REC | _PRIVATE)
        root = "/proc"  # a folder that every machine has and that isn't needed any more
        with open(runner, encoding="utf-8") as file:
            source = file.read()
        folders = {path for path in [*prefixes, "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"] if os.path.isdir(path)}
        _mount("none", root, "tmpfs", _NOSUID, "size=4m,mode=755")
        for path in sorted(folders):
            if os.path.islink(path):
                os.makedirs(os.path.dirname(root + path), exist_ok=True)
                os.symlink(os.readlink(path), root + path)
            elif not os.path.isdir(root + path):  # else it lies within a folder that is there already
                os.makedirs(root + path)
                _mount(path, root + path, None, _BIND | _REC)
                _read_only(root + path, _AT_RECURSIVE, _NOSUID | _NODEV)
        for path in ("/etc/ld.so.cache", "/dev/null", "/dev/urandom"):
            if os.path.exists(path):
                os.makedirs(os.path.dirname(root + path), exist_ok=True)
                os.close(os.open(root + path, os.O_CREAT))
                _mount(path, root + path, None, _BIND)
        os.mkdir(root + "/tmp")
        with open(root + "/runner.py", "w", encoding="utf-8") as file:
            file.write(source)
        py_compile.compile(root + "/runner.py", root + "/runner.pyc", doraise=True)
        os.chmod(root + "/runner.pyc", 0o644)
        _read_only(root, 0, _NOSUID)
        os.chroot(root)
        os.chdir("/")

    def __enter__(self) -> "Jail":
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _children() -> list[int]:
    with open("/proc/thread-self/children") as file:
        return [int(pid) for pid in file.read().split()]


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    _check(_LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    result = _LIBC.mount(
        source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options and options.encode()
    )
    _check(result, f"mounting {target}")


def _read_only(path: str, how: int, flags: int) -> None:
    """Makes a mount (and with _AT_RECURSIVE those below it) read-only; the older way would undo flags that are locked."""
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY | flags, 0, 0, 0)
    result = _LIBC.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), how, ctypes.byref(attributes), ctypes.sizeof(attributes))
    _check(result, f"making {path} read-only")


if __name__ == "__main__":
    main()
