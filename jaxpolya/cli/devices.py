"""jax and Python, made ready for the commands that compute."""

import gc
import logging
import os
import sys

from jaxpolya.compile_cache import use_compile_cache

HEARTBEAT = 40
"""Seconds without a sign of life after which a host of a pod is taken for dead, and all others end: within a minute, where jax's own 100
would let a pod stand. The sign is given by a thread of the runtime, however busy Python is."""


def start_jax() -> None:
    """Joins the pod, if there is one, turns on the compile cache, and keeps the libraries' threads quiet. Raises `MachineError` where the
    device that was asked for isn't there.

    What Orbax's threads meet (a full disk, say) is raised to us as well; their own tracebacks would bury the one sentence.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own, and would say everything twice
    sys.unraisablehook = lambda caught: None if "Event loop is closed" in str(caught.exc_value) else sys.__unraisablehook__(caught)
    import jax

    use_compile_cache()
    if os.environ.get("JAXPOLYA_DISTRIBUTED") == "1":
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
    from jaxpolya.parallel.mesh import all_devices

    all_devices()


def settle() -> None:
    """Tells the garbage collector that what is imported by now stays, and to look at what is new less often.

    Half a million objects are imported, and each full collection looks at them for half a second; records add many more. That took a fifth
    of the time in which responses are judged and written.
    """
    import jaxpolya.runs.pipeline  # noqa: F401 (what stages import stays too)

    gc.freeze()
    gc.set_threshold(10_000)
