"""Errors that are for people.

A mistake in what a user gave us (a config, a file, a model) or a limit of the machine is raised as a `JaxpolyaError`. The
command line prints its message without a traceback and leaves with its exit code; anything else is a bug of ours and shows
its traceback. A message says what happened, where, and what to do.
"""

import difflib
import errno
import traceback
from pathlib import Path
from typing import Any

EXIT_CODES = {
    0: "done",
    1: "a bug in jaxpolya (with a traceback)",
    2: "the command line or the configuration is wrong; nothing was loaded",
    3: "an input (model, questions, answers) is missing or broken",
    4: "the run cannot go on with what it has (no correct response to learn from, say)",
    5: "the machine refused: disk full, no permission, a device or a package is missing",
    6: "a check that was asked for failed (export --verify); nothing was written",
    130: "interrupted; the same command goes on from here",
}


class JaxpolyaError(Exception):
    """Base of every error that a user can mend."""

    exit_code = 1


class ConfigError(JaxpolyaError):
    """A configuration that cannot mean anything: unknown key, wrong type, impossible combination."""

    exit_code = 2


class InputError(JaxpolyaError):
    """A checkpoint, a question file or an answer file that is missing, unreadable or inconsistent."""

    exit_code = 3


class RunError(JaxpolyaError):
    """A run that was sound so far and has nothing to go on with."""

    exit_code = 4


class MachineError(JaxpolyaError):
    """The disk, the permissions, the devices or the packages of this machine stand in the way."""

    exit_code = 5


class CheckError(JaxpolyaError):
    """What was made is not what it should be, says a check that the user asked for."""

    exit_code = 6


def not_finite(model: str, what: str, dtype: object) -> InputError:
    """What to say of a model that doesn't compute.

    Args:
      model: as the user knows it.
      what: came out as NaN or infinite.
      dtype: that it computed in.
    """
    return InputError(
        f"{model}: its {what} are not finite numbers (NaN or infinite): its weights are damaged, or it overflows in {dtype}; take another "
        "checkpoint, or compute in float32"
    )


def failure(error: BaseException) -> str:
    """What code that a user brought met, and where in it: `KeyError: 'x' (reward.py:12)`."""
    message = (str(error).splitlines() or [""])[0]
    ours = str(Path(__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename and not f.filename.startswith(ours)]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{where}"


def nearest_path(path: Any) -> str:
    """A hint at what a missing path (pathlib's or etils') may have meant, or at how much of it is there; "" where nothing is near."""
    parent = path.parent
    if not parent.is_dir():
        while not parent.is_dir() and parent != parent.parent:
            parent = parent.parent
        return f" ({parent} is there, {path.parent} is not)" if parent.is_dir() and str(parent) not in (".", "/") else ""
    try:
        beside = [child.name for child in parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.5)
    return f" (did you mean {parent / close[0]}?)" if close else ""


def machine_trouble(error: BaseException | None) -> str | None:
    """What to do about a full disk, a forbidden path, a missing device or full device memory, wherever in a chain it was noticed."""
    while error is not None:
        text = str(error)
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
            return "the disk is full; free some space, or set `output` to another disk. What was finished is kept: the same command goes on"
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            return f"no permission: {text}"
        if number == errno.EFBIG or "File too large" in text:
            return "a file would be larger than this system allows (`ulimit -f`, or the file system's limit); raise it"
        if number in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.ENAMETOOLONG):
            return f"the system refuses: {text}"
        if isinstance(error, ModuleNotFoundError) and (error.name or "jaxpolya").split(".")[0] != "jaxpolya":
            return f"the Python package of the module {error.name} is missing; install it, or jaxpolya anew with what it needs"
        if "Unable to initialize backend" in text:
            return (
                f"the device is not there: {text.splitlines()[0]}; JAX_PLATFORMS=cpu runs without it, the extras tpu and cuda bring drivers"
            )
        if "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
            return (
                "the device's memory is full; lower decode.rows or batching.micro_rows, set batching.remat to block, or shard over more "
                f"devices (mesh). The device said: {text.splitlines()[0][:300]}"
            )
        error = error.__cause__ or error.__context__
    return None
