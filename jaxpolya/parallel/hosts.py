"""What several hosts tell each other: small Python values, exchanged in lockstep.

Every function here is a collective: all hosts call it, in the same order, or the pod hangs. On one host they cost nothing.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxpolya.errors import CheckError, ConfigError, InputError, MachineError, RunError


def exchange(value: Any) -> list[Any]:
    """Every host's JSON value, in the order of hosts, on every host; for what is small: it passes through device memory."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([data.size], np.int32), tiled=True)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: data.size] = data
    gathered = multihost_utils.process_allgather(padded[None], tiled=True)
    return [json.loads(bytes(row[:size])) for row, size in zip(gathered, sizes, strict=True)]


def from_primary(value: Any) -> Any:
    """The primary host's JSON value; what the others pass is ignored."""
    return exchange(value)[0]


def wait_for_all(name: str) -> None:
    """Returns when every host has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that ends alike on all hosts: where one raises, all raise, and none waits for one that has left.

    A host raises what it met itself; the others raise what the first such host met, as a `MachineError` where it isn't of
    `jaxpolya.errors`. Collectives within the block are the caller's: what one host meets must not keep it from them.
    """
    try:
        yield
    except Exception as error:
        exchange([type(error).__name__, str(error)])
        raise
    for host, told in enumerate(exchange(None)):
        if told:
            name, words = told
            known = {kind.__name__: kind for kind in (ConfigError, InputError, RunError, MachineError, CheckError)}
            raise known[name](words) if name in known else MachineError(f"host {host} met {name}: {words}")
