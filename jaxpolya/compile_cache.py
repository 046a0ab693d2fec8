"""One cache of compiled programs a user, bounded in size.

A stage of a small model waits longer for XLA than for anything else, and what it compiles is the same in the next run, arm or seed. What a
user has set for jax holds: a directory of their own, or none. Where the directory can't be written (no home, a read-only one), there is no
cache, and nobody is told: everything works, as the first time.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTES = 4 * 2**30
"""What was used longest ago goes first."""
SHORTEST = 0.2
"""Seconds that a program has to take to be kept; jax's own bound of 1 would leave out most of what a CPU compiles."""


def cache_settings(environment: Mapping[str, str], configured: str | None, enabled: bool = True) -> dict[str, Any]:
    """jax's settings for the cache; {} where the user's own hold, or there is nowhere to keep it.

    Args:
      environment: of the process. `XDG_CACHE_HOME` says where caches lie, by default `~/.cache`.
      configured: the directory that jax has already, from `JAX_COMPILATION_CACHE_DIR` too.
      enabled: jax's own switch.
    """
    if configured or not enabled or environment.get("JAX_COMPILATION_CACHE_DIR") is not None:
        return {}
    try:
        # A name of its own: the bound goes by when each program was used, which caches without one don't record.
        directory = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxpolya" / "programs"
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home
        return {}
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return {}
    settings: dict[str, Any] = {"jax_compilation_cache_dir": str(directory)}
    if "JAX_COMPILATION_CACHE_MAX_SIZE" not in environment:
        settings["jax_compilation_cache_max_size"] = BYTES
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in environment:
        settings["jax_persistent_cache_min_compile_time_secs"] = SHORTEST
    return settings


def use_compile_cache() -> None:
    """Turns the cache on for this process; called again, it changes nothing."""
    import jax

    config: Any = jax.config  # its attributes are made when jax is imported
    settings = cache_settings(os.environ, config.jax_compilation_cache_dir, config.jax_enable_compilation_cache)
    for name, value in settings.items():
        config.update(name, value)
