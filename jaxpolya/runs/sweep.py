"""`jaxpolya sweep`: one configuration with some of its settings varied, all points in one run directory.

Points share every stage that a setting doesn't touch, each keeps its results (`configurations`), and the same command goes on with what is
left. Doses of RL (`rl.evaluate_at`) are one training: their values become one point's list.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxpolya.config import RunConfig
from jaxpolya.config.file import load_config
from jaxpolya.errors import ConfigError, JaxpolyaError
from jaxpolya.progress import Display
from jaxpolya.runs.configurations import settings_of, split_values

DOSES = "rl.evaluate_at"


def points(config: Path, vary: Sequence[str], overrides: Sequence[str] = ()) -> list[tuple[str, RunConfig]]:
    """(name, run) of every combination of the varied settings, the last varying fastest; all are read before one is run.

    Args:
      config: a YAML file.
      vary: `key.key=value,value,…`.
      overrides: `key.key=value`, of all points.

    Raises:
      ConfigError: one is no such setting, has one value, or no valid configuration.
    """
    if not vary:
        raise ConfigError("sweep: there is nothing to vary; give --vary KEY=VALUE,VALUE, such as --vary select.n=1,4,16")
    axes = [list(_axis(text)) for text in vary]
    if len({key.partition("=")[0] for axis in axes for key in axis[:1]}) < len(axes):
        raise ConfigError("sweep: --vary names each setting once, with all its values")
    configs = []
    for chosen in itertools.product(*axes):
        name = ",".join(chosen)
        try:
            configs.append((name, load_config(config, [*overrides, *chosen])))
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    return configs


def check(planned: Sequence[tuple[str, RunConfig]]) -> None:
    """Whether every point can be done, as far as can be told without loading questions. Raises a `JaxpolyaError` naming the point."""
    from jaxpolya.runs.checks import saying_where  # these two bring jax, which a mistake in `points` needn't wait for
    from jaxpolya.runs.session import Session

    for name, point in planned:
        try:
            with saying_where(point):
                settings_of(point)  # looks for the files
            Session(point, Display(quiet=True))
        except JaxpolyaError as error:
            raise type(error)(f"{name}: {error}") from error.__cause__


def _axis(text: str) -> Iterator[str]:
    """The overrides of one `--vary`."""
    key, equals, values = text.partition("=")
    each = [value.strip() for value in split_values(values)]
    if not equals or not key.strip() or not all(each):
        raise ConfigError(f"--vary {text}: write it as key.key=value,value,…")
    if len(set(each)) < len(each):
        raise ConfigError(f"--vary {text}: a value stands there twice")
    if key.strip() == DOSES:
        yield f"{DOSES}=[{','.join(value.strip('[]') for value in each)}]"
        return
    for value in each:
        yield f"{key.strip()}={value}"
