"""Commands on runs: run, show."""

import difflib
from pathlib import Path
from typing import Annotated

import typer

from jaxpolya.cli import devices
from jaxpolya.cli.options import ConfigPath, Overrides
from jaxpolya.cli.screen import errors, say, show_results


def run(
    config: ConfigPath,
    set_: Overrides = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="PHASE",
            help="Do this phase alone: questions, generate, select, sft, rl, eval or report. Those before it must be done.",
            show_default=False,
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(metavar="ARM,ARM", help="The arms to run instead of the config's, such as base,polya+rl.", show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but the result.")] = False,
) -> None:
    """Run the whole method, or what is left of it.

    Every stage's directory is named by a hash of what it depends on, so the same command goes on after an interruption, and a
    changed configuration redoes only what the change touches.
    """
    from jaxpolya.config_file import load_config

    overrides = list(set_ or [])
    if arms is not None:
        overrides.append(f"arms=[{', '.join(parse_arms(arms))}]")
    loaded = load_config(config, overrides)
    devices.start_jax()
    from jaxpolya.parallel.mesh import is_primary
    from jaxpolya.progress import Display
    from jaxpolya.runs import pipeline

    results = pipeline.run(loaded, Display(errors, quiet=quiet or not is_primary()), only=only)
    if results is not None and is_primary():
        show_results(results, loaded.output / loaded.name)


def show(run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]) -> None:
    """Show what a run has done and found."""
    from jaxpolya.results import Results
    from jaxpolya.runs.results import show_stages, stage_warnings

    for line in show_stages(run_directory):
        say(line)
    results = Results.read(run_directory)
    if results is not None:
        show_results(results, run_directory)
    else:
        for words in stage_warnings(run_directory):
            say(f"warning: {words}")


def parse_arms(text: str) -> list[str]:
    """The arms in the value of `--arms`. Raises `ConfigError` on what is none."""
    from jaxpolya.arms import ARMS
    from jaxpolya.errors import ConfigError

    named = [arm.strip() for arm in text.split(",")]
    for arm in named:
        if arm not in ARMS:
            close = difflib.get_close_matches(arm, ARMS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(ARMS)}"
            raise ConfigError(f"--arms: {arm!r} is not an arm; {hint}")
    return named
