"""The command as a process: exit codes, interruptions, one sentence for a mistake.

Mistakes end in one sentence and an exit code that means something (`jaxpolya.errors.EXIT_CODES`); only a bug of ours shows a
traceback. Ctrl-C and a polite kill leave a run that the same command goes on with.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from rich.text import Text

from jaxpolya.cli.app import app
from jaxpolya.cli.screen import errors
from jaxpolya.errors import JaxpolyaError, machine_trouble

INTERRUPTED = 130
GO_ON = "interrupted; what was finished is kept: give the same command again to go on"


def entry() -> NoReturn:
    """The `jaxpolya` command as a process."""
    try:
        main()
    except SystemExit as end:
        for number in (signal.SIGINT, signal.SIGTERM):  # what comes now is too late to stop anything: the exit code stands
            signal.signal(number, signal.SIG_IGN)
        if end.code == INTERRUPTED:
            # All is written and closed. An interpreter that ends in order would wait for the libraries' threads, and let them complain.
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        raise


def main() -> NoReturn:
    """The `jaxpolya` command, within a process that may go on."""
    with _interruptible() as interruptions:
        try:
            code = app(prog_name="jaxpolya", standalone_mode=False)  # typer turns what it raises itself into a number
            sys.stdout.flush()
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            sys.exit(code or 0)
        except (KeyboardInterrupt, typer.Abort):
            _leave_interrupted()
        except Exception as error:
            if interruptions:
                _leave_interrupted()
            if isinstance(error, JaxpolyaError):
                _leave(str(error), error.exit_code)
            if isinstance(error, BrokenPipeError):  # whoever read our output has read enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(0)
            if hasattr(error, "format_message"):  # click's own errors
                _leave(_usage(error), 2)
            if remedy := machine_trouble(error):
                _leave(remedy, 5)
            raise


def _usage(error: Any) -> str:
    """What click found wrong with the command line; empty where it has shown the help instead."""
    message = error.format_message().rstrip(".")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "jaxpolya"
    return message and f"{message[0].lower()}{message[1:]} ({command} --help says what there is)"


def _leave_interrupted() -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # one is enough
    _leave(GO_ON, INTERRUPTED)


def _leave(message: str, code: int) -> NoReturn:
    if message:
        errors.print(Text.assemble(("jaxpolya:", "bold red"), " ", message), soft_wrap=True)
    sys.stderr.flush()
    sys.exit(code)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C, and SIGTERM, which preemption sends, raise KeyboardInterrupt. Yields the list of the signals that came.

    Libraries that are hit by the exception may turn it into one of their own, and log it at length. Where it hits a finalizer, Python
    drops it: then it comes again.
    """
    came: list[int] = []
    timers: list[threading.Timer] = []

    def stop(number: int, _: object) -> None:
        came.append(number)
        logging.disable()
        sys.unraisablehook = again
        raise KeyboardInterrupt

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if dropped.exc_type is KeyboardInterrupt:
            timers.append(threading.Timer(0.1, os.kill, (os.getpid(), came[-1])))
            timers[-1].start()

    # A process that was started to ignore Ctrl-C, as shells start those in the background, goes on ignoring it.
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    hook = sys.unraisablehook
    try:
        yield came
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        logging.disable(logging.NOTSET)
        sys.unraisablehook = hook
