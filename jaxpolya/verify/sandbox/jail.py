"""The launcher: a small process that starts untrusted interpreters one at a time, and outlives them.

`python -I -S jail.py SOCKET LEVEL PYTHON RUNNER FOLDER MEMORY_MB PREFIX… NAME=PACKAGE…` is started by `sandbox.Sandbox`, is trusted, has
no threads and few imports, so that forking it is cheap. What needs privileges is done here, once: namespaces, and a file
system that holds a read-only Python, the modules that programs may import, two devices, and nothing else of this machine's. Each program
then gets a PID namespace, an empty `/tmp`, limits, as root a user id without any rights, and a fresh interpreter as the first
process of its namespace: when that is killed, the kernel kills whatever lives there, so nothing hides by leaving its group or session.
The launcher is itself the first process of a namespace around those: were it killed, all would be.

Levels: `namespaces` is all of the above. `user` and `limits` are what is left where the kernel refuses namespaces: resource limits, a
temporary directory, and (`user`) another user id. There a stopped program's group is killed, and its other descendants, which
all become children of this process (a sub-reaper), are killed until there are none. The network and the file system stay
within a program's reach then; `Sandbox.weakness` says so.

On the socket (which keeps messages apart) the judge sends `start SECONDS` with three descriptors (control, stdin, stdout), is answered
`started`, may send `wait`, answered `ended STATUS` when the program has ended by itself (a negative status is a signal), and sends
`stop` when it has heard enough, answered `stopped` when nothing is left. When the judge is gone, so is all of this.
"""

import ctypes
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress

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
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/urandom")


def main() -> None:
    """Serves one judge until it is gone."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    level, python, runner, folder, memory_mb, *rest = sys.argv[2:]
    prefixes = [part for part in rest if part.startswith("/")]
    packages = dict(part.split("=", 1) for part in rest if not part.startswith("/"))
    try:
        jail = Jail(level, python, runner, folder, int(memory_mb), prefixes, packages)
    except OSError as error:
        connection.send(f"failed {error}".encode())
        return
    try:
        connection.send(b"ready" if jail.bounded else b"ready unbounded")
        serve(jail, connection)
    finally:
        if not jail.isolated:
            _remove(folder)


def serve(jail: "Jail", connection: socket.socket) -> None:
    """Starts and stops programs until the judge is gone."""
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
        with suppress(OSError):  # where the judge is gone
            connection.send(b"started")
            if connection.recv(100) == b"wait":
                ended = jail.ended(child, connection)
                if ended is not None:
                    connection.send(b"ended %d" % ended)
                connection.recv(100)
        jail.stop(child)
        try:
            connection.send(b"stopped")
        except OSError:
            return


class Jail:
    """Where programs run. Raises `OSError` where this machine refuses the level."""

    def __init__(self, level: str, python: str, runner: str, folder: str, memory_mb: int, prefixes: list[str], packages: dict[str, str]):
        self.isolated, self.other_user = level == "namespaces", level != "limits" and os.geteuid() == 0
        self.python, self.memory = python, memory_mb << 20
        if level == "user" and not self.other_user:
            raise PermissionError("only root can become another user")
        if self.isolated:
            self._enter_namespaces(folder)
            self._build_root(runner, [os.path.dirname(python), *prefixes], packages)
            self.runner, self.scratch, self.packages = "/runner.pyc", "/tmp", "/packages"
        else:
            _prctl(_SET_CHILD_SUBREAPER, 1)
            self.runner, self.scratch, self.packages = runner, os.path.join(folder, "scratch"), os.path.join(folder, "packages")
            os.mkdir(self.packages, 0o755)
            for name, path in packages.items():
                os.symlink(path, os.path.join(self.packages, name))
        self.settings = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") if packages else {}
        """A library of numbers would start a thread a core, beyond the limit of processes."""
        _prctl(_SET_DUMPABLE, 0)
        self.bounded = self.other_user or os.geteuid() not in (0, NOBODY)
        """Whether the limit of processes binds: it never does a program that is this machine's root, whatever its namespace calls it."""
        self.untouched = 0
        self.deaths, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        """Has a byte to read whenever a child has died."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def start(self, descriptors: list[int], seconds: int) -> int:
        """Starts a program; returns the process that it lives and dies with."""
        self._clear_scratch()
        if self.isolated:
            _check(_LIBC.unshare(_NEWPID), "a PID namespace")
        try:
            child = os.fork()
            if not child:
                try:
                    self._run(descriptors, seconds)
                finally:
                    os._exit(1)
            return child
        finally:
            if self.isolated:
                _check(_LIBC.setns(self.pid_namespace, _NEWPID), "returning from a PID namespace")

    def ended(self, child: int, connection: socket.socket) -> int | None:
        """Waits for a program's end; returns its exit status or minus its signal, or None as soon as the judge has something to say."""
        while True:
            status = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if status:
                return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
            if connection.fileno() in select.select([connection.fileno(), self.deaths], [], [])[0]:
                return None
            with suppress(BlockingIOError):
                os.read(self.deaths, 4096)

    def stop(self, child: int) -> None:
        """Kills and reaps a program with all that it has started."""
        os.kill(child, signal.SIGKILL)
        if self.isolated:
            os.waitpid(child, 0)  # the kernel has killed and reaped the namespace by then
            return
        with suppress(OSError):  # it may not have got as far as having a group
            os.killpg(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                for pid in _children():  # orphans become our children
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)

    def _run(self, descriptors: list[int], seconds: int) -> None:
        """In the program's own process: limits, and a fresh interpreter."""
        os.setsid()
        os.chdir(self.scratch)
        high = [os.dup(descriptor) for descriptor in descriptors]
        null = os.open("/dev/null", os.O_WRONLY)
        for target, descriptor in enumerate([high[1], high[2], null, high[0]]):
            os.dup2(descriptor, target)
        if self.other_user:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        if self.isolated:
            _LIBC.unshare(_NEWUSER)  # counts processes afresh and forbids further namespaces; where refused, the user id protects
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(_SET_NO_NEW_PRIVS, 1)
        for kind, wanted in (*LIMITS, (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, self.memory)):
            hard = resource.getrlimit(kind)[1]
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (limit, limit))
        os.execve(self.python, [self.python, "-I", "-S", self.runner, self.packages], self.settings)

    def _clear_scratch(self) -> None:
        """Empties the folder that programs may write to; most leave it as it was."""
        if self.untouched and os.stat(self.scratch).st_ctime_ns == self.untouched:
            return
        if self.isolated:
            _LIBC.umount2(b"/tmp", _DETACH)
            _mount("none", "/tmp", "tmpfs", _NOSUID | _NODEV, SCRATCH)
        else:
            _remove(self.scratch)
            os.makedirs(self.scratch, mode=0o700, exist_ok=True)
        if self.other_user:
            os.chown(self.scratch, NOBODY, NOBODY)
        self.untouched = os.stat(self.scratch).st_ctime_ns

    def _enter_namespaces(self, folder: str) -> None:
        """Goes on as the first process of new namespaces; the old process waits for it, and tidies up."""
        user, group = os.geteuid(), os.getegid()
        kinds = _NEWNS | _NEWNET | _NEWIPC | _NEWPID
        if user or _LIBC.unshare(kinds):  # nobody, or a root whose wings are clipped: a user namespace gives what it takes
            self.other_user = False
            _check(_LIBC.unshare(kinds | _NEWUSER), "namespaces")
            inside = user or NOBODY  # root within a namespace would keep its privileges there
            for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {user} 1"), ("gid_map", f"{inside} {group} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        if inner := os.fork():
            os.closerange(3, 100)
            os.waitpid(inner, 0)
            _remove(folder)
            os._exit(0)
        _prctl(_SET_PDEATHSIG, signal.SIGKILL)
        self.pid_namespace = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY)

    def _build_root(self, runner: str, prefixes: list[str], packages: dict[str, str]) -> None:
        """A root that holds Python, its libraries, and nothing else."""
        with open(runner, "rb") as file:
            code = file.read()
        _mount("none", "/", None, _REC | _PRIVATE)
        root = "/proc"  # a folder that every machine has, and that isn't needed any more
        folders = sorted(path for path in {*prefixes, *LIBRARIES} if os.path.isdir(path))
        files = [path for path in FILES if os.path.exists(path)]
        _mount("none", root, "tmpfs", _NOSUID, "size=4m,mode=755")
        for path in folders:
            if os.path.islink(path):
                os.makedirs(os.path.dirname(root + path), exist_ok=True)
                os.symlink(os.readlink(path), root + path)
            elif not os.path.isdir(root + path):  # else it lies within a folder that is there already
                os.makedirs(root + path)
                _mount(path, root + path, None, _BIND | _REC)
                _read_only(root + path, _AT_RECURSIVE, _NOSUID | _NODEV)
        for path, target in [*((path, path) for path in files), *((path, f"/packages/{name}") for name, path in packages.items())]:
            if os.path.isdir(path):
                os.makedirs(root + target)
            else:
                os.makedirs(os.path.dirname(root + target), exist_ok=True)
                os.close(os.open(root + target, os.O_CREAT))
            _mount(path, root + target, None, _BIND)
            if path not in files:
                _read_only(root + target, 0, _NOSUID | _NODEV)
        with open(root + "/runner.pyc", "wb") as file:
            file.write(code)
        os.mkdir(root + "/tmp")
        os.symlink("/tmp", root + "/dev/shm")  # where semaphores of multiprocessing lie
        _read_only(root, 0, _NOSUID)
        os.chroot(root)
        os.chdir("/")


def _remove(folder: str) -> None:
    import shutil  # a large module that the launcher itself can do without

    shutil.rmtree(folder, ignore_errors=True)


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
    encoded = (text and text.encode() for text in (source, target, kind))
    _check(_LIBC.mount(*encoded, ctypes.c_ulong(flags), options and options.encode()), f"mounting {target}")


def _read_only(path: str, how: int, flags: int) -> None:
    """Makes a mount (and with _AT_RECURSIVE those below it) read-only. `remount` would need to know which flags are locked."""
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY | flags, 0, 0, 0)
    result = _LIBC.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), how, ctypes.byref(attributes), ctypes.sizeof(attributes))
    _check(result, f"making {path} read-only")


if __name__ == "__main__":
    main()
