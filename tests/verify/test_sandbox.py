"""The cage: what a program can't do, and that nothing of it is left."""

import math
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from jaxpolya.verify.sandbox.bridge import Bridge
from jaxpolya.verify.sandbox.remote import Raised, Uncarried, is_remote
from jaxpolya.verify.sandbox.sandbox import LEVELS, Died, Ended, Late, Sandbox, SandboxError
from jaxpolya.verify.sandbox.wire import MAX_BYTES, WireError, decode, encode

VALUES = [
    None, True, False, 0, -7, 10**4000, 0.1, -0.0, math.inf, 2 - 3j,
    "", "aé\ud800\n;", b"\x00;", range(3, -9, -2), [], (), set(), frozenset(), {},
    [1, (2, [3, {4}])], {(1, "x"): {"y": [None]}, frozenset({2}): b"z"}, int, frozenset,
]  # fmt: skip


TRACE = f"jaxpolya-trace-{os.getpid()}"


def names() -> dict[str, str]:
    """The command line of every process on this machine that runs a program of ours, or one that nobody owns any more."""
    commands, parents = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            commands[folder.name] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue

    def of_another_run(pid: str) -> bool:
        launched = False
        while pid in parents and pid != str(os.getpid()):
            launched |= "jail.py" in commands[pid]
            pid = parents[pid]
        return launched and pid != str(os.getpid())

    ours = {pid: line for pid, line in commands.items() if "runner.pyc" in line and "jail.py" not in line and not of_another_run(pid)}
    return ours | {pid: line for pid, line in commands.items() if TRACE in line}


@pytest.fixture(scope="module")
def strong():
    try:
        with Sandbox("namespaces") as sandbox:
            if sandbox.weakness:
                pytest.skip(sandbox.weakness)
            yield sandbox
    except SandboxError as error:
        pytest.skip(f"no namespaces on this machine: {error}")


@pytest.fixture(scope="module", params=["namespaces", "limits"])
def cage(request):
    try:
        with Sandbox(request.param) as sandbox:
            yield sandbox
    except SandboxError as error:
        pytest.skip(f"not on this machine: {error}")


def run(sandbox: Sandbox, source: str, *arguments, seconds: float = 60.0, then=lambda value: value):
    """What the program's function `f` returns, and `then` makes of it."""
    with sandbox.program(seconds) as program:
        assert program.load([source])[0] == "loaded"
        return then(Bridge(program).ask("get", "f")(*arguments))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_travel_with_their_types(value):
    back = decode(encode(value))
    assert back == value and type(back) is type(value) and repr(back) == repr(value)


def test_nan_travels():
    assert math.isnan(decode(encode([math.nan]))[0])


@pytest.mark.parametrize(
    "data",
    [b"", b"i", b"i;", b"izz;", b"l5;N", b"s-1;", b"sffffffff;a", b"NN", b"q1;", b"d1;l0;N", b"S1;d0;", b"yeval;",
     b"o1;", b"fx;", b"l1;" * 5000, b"r1,2,0;", b"\xff\xff", b"s1;\xff"],
)  # fmt: skip
def test_nonsense_is_refused(data):
    with pytest.raises(WireError):
        decode(data)


@pytest.mark.parametrize("value", [object(), lambda: 0, type("int", (int,), {})(3), type, "x" * MAX_BYTES])
def test_what_can_not_travel_is_refused(value):
    with pytest.raises(WireError):
        encode(value)


def test_calls_and_exceptions(cage):
    source = (
        "def f(*a, **k): return a, k\ndef g(): raise KeyError('x')\nclass Mine(Exception): pass\ndef h(): raise Mine('m')\nclass P: pass\n"
        "def is_p(p): return type(p) is P\ndef ask(): return input()\ndef gen():\n    yield from 'ab'"
    )
    with cage.program(5) as program:
        assert program.load(["not a program", source]) == ("loaded", "")
        names = Bridge(program)

        def call(name, *arguments, **named):
            return names.ask("get", name)(*arguments, **named)

        assert call("f", 1, [2], x=(3,)) == ((1, [2]), {"x": (3,)})
        with pytest.raises(KeyError, match=r"^'x'$"):
            call("g")
        with pytest.raises(names.ask("get", "Mine"), match=r"^m$"):
            call("h")
        with pytest.raises(NameError, match="the program defines no nosuch"):
            call("nosuch")
        with pytest.raises(EOFError):
            call("ask")
        own = call("P")
        assert is_remote(own) and own != call("P") and call("is_p", own) is True and own
        assert list(call("gen")) == ["a", "b"]
        with pytest.raises(Uncarried, match="can't be given"):
            call("f", object())


def test_what_does_not_load_says_why(cage):
    for source, outcome, word in (
        ("def", "syntax", "SyntaxError"),
        ("1/0", "raised", "ZeroDivision"),
        ("raise SystemExit(0)", "raised", "SystemExit"),
    ):
        with cage.program(5) as program:
            got, complaint = program.load([source])
            assert got == outcome and word in complaint


def test_every_program_is_fresh(cage):
    run(cage, "import builtins, sys\nbuiltins.abs = lambda x: 99\nopen('left', 'w').write('x')\ndef f(): return abs(-1)")
    assert run(cage, "import os\ndef f(): return abs(-1), os.listdir('.'), sorted(os.environ)") == (1, [], ["LC_CTYPE"])


def test_deadline(cage):
    start = time.monotonic()
    with pytest.raises(Late):
        run(cage, "def f():\n    while True: pass", seconds=0.5)
    assert 0.5 <= time.monotonic() - start < 30  # on a busy machine its end is noticed late
    with pytest.raises(Late), cage.program(0.5) as program:
        program.load(["while True: pass"])


def test_memory(cage):
    with pytest.raises(MemoryError):
        run(cage, "def f(): return len(bytearray(1 << 30))")


def test_files_are_small_and_few(cage):
    with pytest.raises(OSError, match=r"too large|left"):
        run(cage, "def f():\n    for n in range(3): open(str(n), 'wb').write(bytes(20 << 20))")
    with pytest.raises(OSError, match="Too many open"):
        run(cage, "def f(): return len([open('x%d' % n, 'w') for n in range(100)])")


def test_answers_are_small(cage):
    with pytest.raises(Exception, match="too large"):
        run(cage, "def f(): return 'x' * (20 << 20)")
    with pytest.raises(Exception, match="deep"):
        run(cage, "def f():\n    x = []\n    for _ in range(10000): x = [x]\n    return x")
    with pytest.raises((Raised, Ended, MemoryError)):
        run(cage, "import itertools\ndef f(): return itertools.count()", then=list)
    with pytest.raises(RecursionError):
        run(cage, "def f(): return f()")


FORGERIES = {
    "nonsense": "os.write(3, b'\\x00\\x00\\x00\\x02zz')",
    "a length without an end": "os.write(3, b'\\xff\\xff\\xff\\xff')",
    "a message of another shape": "os.write(3, b'\\x00\\x00\\x00\\x01N')",
    "closing its socket": "os.close(3)",
    "leaving with success": "os._exit(0)",
    "aborting": "os.abort()",
    "a crash of the interpreter": "import ctypes; ctypes.string_at(0)",
    "closing everything": "os.closerange(0, 100)",
}


@pytest.mark.parametrize("attack", FORGERIES.values(), ids=FORGERIES)
def test_a_program_that_spoils_its_line_is_dead(strong, attack):
    with pytest.raises(Died):
        run(strong, f"import os\ndef f():\n    {attack}")
    assert run(strong, "def f(): return 1") == 1


def test_forged_values_are_only_values(strong):
    """A forged answer is the program's answer; the line is then out of step, and the next call gets what belonged to this one."""
    source = "import os\ndef f(x):\n    os.write(3, b'\\x00\\x00\\x00\\x11' + b't3;s5;valuei7;d0;')\n    return x"
    with strong.program(5) as program:
        program.load([source])
        function = Bridge(program).ask("get", "f")
        assert function(1) == 7
        assert function(2) == 1


def test_network_is_away(strong):
    with pytest.raises(OSError):
        run(strong, "import socket\ndef f(): socket.create_connection(('127.0.0.1', 1), 1)")
    assert run(strong, "import socket\ndef f(): return [name for _, name in socket.if_nameindex()]") == ["lo"]


def test_files_of_the_machine_are_away(strong, tmp_path):
    secret = tmp_path / "tests.py"
    secret.write_text("expected")
    os.chmod(secret, 0o666)
    for path in (secret, "/etc/passwd", "/proc/self/status", Path(__file__)):
        with pytest.raises(OSError):
            run(strong, "def f(path): return open(path).read()", str(path))
    library = os.__file__
    with pytest.raises(OSError):
        run(strong, "def f(path): open(path, 'a').write('#')", library)
    for folder in ("/", os.path.dirname(library), "/dev", "/usr/lib"):
        with pytest.raises(OSError):
            run(strong, "def f(path): open(path + '/new', 'w')", folder)


def test_other_processes_are_away(strong):
    source = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def f():
    results = {"pid": os.getpid(), "parent": os.getppid(), "uid": os.getuid() == 0, "groups": os.getgroups()}
    results["signals"] = []
    for pid in range(2, 40):
        try: os.kill(pid, 0); results["signals"].append(pid)
        except OSError: pass
    results["unshare"] = libc.unshare(0x10000000), libc.unshare(0x20000)
    results["chroot"] = libc.chroot(b".")
    results["setuid"] = libc.setuid(0)
    results["mount"] = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
    results["ptrace"] = libc.ptrace(16, 0, 0, 0)
    results["limits"] = [resource.getrlimit(kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)]
    return results
"""
    assert run(strong, source) == {
        "pid": 1, "parent": 0, "uid": False, "groups": [] if os.geteuid() == 0 else os.getgroups(), "signals": [],
        "unshare": (-1, -1), "chroot": -1, "setuid": -1, "mount": -1, "ptrace": -1, "limits": [(0, 0), (64, 64)],
    }  # fmt: skip


FORK_BOMB = """
import os, time
def f():
    count = 0
    for _ in range(200):
        try:
            if os.fork() == 0:
                os.setsid()
                while True: time.sleep(1)
        except OSError:
            break
        count += 1
    return count
"""


def test_fork_bombs_are_small_and_leave_nothing(strong):
    assert 0 < run(strong, FORK_BOMB) < 20
    assert run(strong, FORK_BOMB) > 0  # the first one's processes count no more
    assert not names()


ESCAPE = """
import ctypes, os, time
def f():
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(PYTHON, [PYTHON, "-I", "-S", "-c", "import time; time.sleep(60)  # TRACE"])
        os._exit(0)
    return 1
"""


def test_daemons_die_with_their_program(cage):
    """Whoever leaves the group, the session and the family is killed all the same, at every level."""
    source = ESCAPE.replace("PYTHON", repr(os.path.realpath(sys.executable))).replace("TRACE", TRACE)
    if cage.level == "limits" and os.geteuid() != 0:
        pytest.skip("without namespaces this user's other processes count against the limit of processes")
    with cage.program(60) as program:
        program.load([source])
        assert Bridge(program).ask("get", "f")() == 1
        end = time.monotonic() + 50
        while not any(TRACE in line for line in names().values()):  # the daemon has to come up
            assert time.monotonic() < end
            time.sleep(0.05)
    assert not names()


def test_nothing_is_left(cage, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others on this machine have theirs in /tmp
    files = set(os.listdir("/proc/self/fd"))
    with Sandbox(cage.level) as sandbox:
        run(sandbox, "def f(): return 1")
        child = sandbox._child.pid
        assert any(tmp_path.iterdir())
    assert not any(tmp_path.iterdir()) and set(os.listdir("/proc/self/fd")) == files
    assert not Path(f"/proc/{child}").exists()


def test_a_killed_launcher_takes_its_program_along_and_is_replaced(strong):
    with Sandbox("namespaces") as sandbox:
        with pytest.raises(Ended), sandbox.program(60) as program:
            program.load(["import time\ndef f(): time.sleep(60)"])
            function = Bridge(program).ask("get", "f")
            sandbox._child.kill()
            function()
        assert run(sandbox, "def f(): return 5") == 5
    assert not names()


def test_the_level_is_known(cage):
    assert cage.level in LEVELS
    assert cage.level == "namespaces" or "degraded" in cage.weakness


def test_without_namespaces_the_next_level_is_taken(monkeypatch):
    """Kernels and containers refuse in their own ways; whatever the reason, it is named."""
    start = Sandbox._start

    def refuse(self):
        if self.level == "namespaces":
            raise SandboxError("namespaces: Operation not permitted")
        start(self)

    monkeypatch.setattr(Sandbox, "_start", refuse)
    with Sandbox() as sandbox:
        assert sandbox.level != "namespaces"
        assert "degraded" in sandbox.weakness and "Operation not permitted" in sandbox.weakness
        assert run(sandbox, "def f(): return 1") == 1


def test_where_nothing_works_it_is_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nosuch/python")
    with pytest.raises(SandboxError, match="no program can be run"):
        Sandbox()
