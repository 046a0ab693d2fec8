"""Whole runs: a configuration, or what is left of it."""

import os
from collections.abc import Iterable
from pathlib import Path

from jaxpolya.compile_cache import use_compile_cache
from jaxpolya.config import RunConfig
from jaxpolya.config.file import load_config, parse_config
from jaxpolya.errors import ConfigError
from jaxpolya.progress import Display
from jaxpolya.results import Results
from jaxpolya.runs import pipeline


def run(config: str | Path | RunConfig, *, overrides: Iterable[str] = (), only: str | None = None, quiet: bool = False) -> Results | None:
    """Runs a configuration, or what is left of it, or one phase.

    Args:
      config: a YAML file, or a `RunConfig`.
      overrides: `a.b=value` each, as `--set` takes them.
      only: the one phase to do, such as `generate`; those before it must be done.
      quiet: shows nothing.

    Returns:
      The run's results; None where `only` names a phase before the last, whose records lie in the run's directory then,
      `config.output / config.name`.

    Raises:
      JaxpolyaError: the run can't be done, or can't go on; what is done stays done.
    """
    if isinstance(config, RunConfig):
        changes = list(overrides)
        loaded = parse_config(config.model_dump(mode="json"), changes) if changes else config
    elif isinstance(config, str | os.PathLike):
        loaded = load_config(config, overrides)
    else:
        raise ConfigError(f"run: a YAML file or a RunConfig is needed, not {config!r:.60}")
    use_compile_cache()
    return pipeline.run(loaded, Display(quiet=quiet), only=only)
