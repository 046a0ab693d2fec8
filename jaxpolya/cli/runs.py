"""Commands on runs: run, sweep, compare, show, clean."""

import difflib
from pathlib import Path
from typing import Annotated

import typer

from jaxpolya.cli import devices
from jaxpolya.cli.options import ConfigPath, Overrides
from jaxpolya.cli.screen import errors, say, show_results, show_table
from jaxpolya.errors import MachineError


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
    from jaxpolya.config.file import load_config

    overrides = list(set_ or [])
    if arms is not None:
        overrides.append(f"arms=[{', '.join(parse_arms(arms))}]")
    loaded = load_config(config, overrides)
    devices.start_jax()
    from jaxpolya.parallel.mesh import is_primary
    from jaxpolya.progress import Display
    from jaxpolya.runs import pipeline

    devices.settle()
    results = pipeline.run(loaded, Display(errors, quiet=quiet or not is_primary()), only=only)
    if results is not None and is_primary():
        show_results(results, loaded.output / loaded.name)


def sweep(
    config: ConfigPath,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V,V,…",
            help="A setting and its values, such as select.n=1,4,16; several are a grid. Doses of RL are rl.evaluate_at=10,20 of one "
            "training.",
            show_default=False,
        ),
    ] = None,
    set_: Overrides = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but the result.")] = False,
) -> None:
    """Run a configuration with settings varied, in one run directory that shares what they don't touch, and compare the points.

    The same command goes on after an interruption.
    """
    from jaxpolya.runs.sweep import check, points

    planned = points(config, vary or [], set_ or [])
    devices.start_jax()
    from jaxpolya.parallel.mesh import is_primary
    from jaxpolya.progress import Display
    from jaxpolya.runs import pipeline

    devices.settle()
    check(planned)
    display = Display(errors, quiet=quiet or not is_primary())
    for i, (name, point) in enumerate(planned, 1):
        display.note(f"point {i} of {len(planned)}: {name}")
        pipeline.run(point, display)
    if is_primary():
        directory = planned[0][1].output / planned[0][1].name
        _compare([directory], None, directory)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run directories.", show_default=False)],
    by: Annotated[
        str | None,
        typer.Option(
            metavar="SETTING",
            help="Draw along this setting, such as n (of select.n), or dose; unset is the one that differs, where it is one.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where compare.html, .md, .png and .json go; unset is the run, or here.", show_default=False),
    ] = None,
) -> None:
    """Compare what configurations found, of one run or of several: a table, a plot, and a page."""
    _compare(runs, by, out or (runs[0] if len(runs) == 1 else Path()))


def _compare(runs: list[Path], by: str | None, directory: Path) -> None:
    from jaxpolya.report.comparison import comparison_tables, settings_table, write_comparison
    from jaxpolya.report.html.compare import write_compare_page
    from jaxpolya.report.tables import present
    from jaxpolya.runs.points import gather_points

    points = gather_points(runs, by)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{directory} can't be made ({error.strerror or error}); name another directory with --out") from None
    text, page = write_comparison(directory, points), write_compare_page(directory / "compare.html", points)
    for table in present([*comparison_tables(points), settings_table(points)]):
        show_table(table)
    say(f"comparison: {text}")
    say(f"page: {page}")


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]


def show(
    run_directory: RunPath,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show the results of this configuration: its name, or settings that single it out, such as select.n=4.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what a run has done and found, and where it is while it works."""
    from jaxpolya.results import Results
    from jaxpolya.runs import configurations, overview

    contents = overview.look_at(run_directory)
    if at is not None:
        place = configurations.place_at(run_directory, at)
        show_results(configurations.results_at(run_directory, at), place)
        return
    if contents.holder:
        words = contents.progress.words if contents.progress else ""
        say(f"running (pid {contents.holder}){f': {words}' if words else ''}")
    if len(contents.configurations) > 1:
        show_table(overview.configurations_table(contents))
    if contents.stages:
        show_table(overview.stages_table(contents))
    else:
        say("nothing is done yet")
    if any(stage.state == "broken off" for stage in contents.stages):
        say("what is broken off goes on with the same `jaxpolya run`")
    if contents.leftovers:
        say(f"{len(contents.leftovers)} stages are left of configurations that are gone: `jaxpolya clean {run_directory}`")
    results = Results.read(run_directory)
    if results is not None:
        show_results(results, run_directory)
    else:
        for words in overview.stage_warnings(run_directory):
            say(f"warning: {words}")


def clean(
    run_directory: RunPath,
    forget: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Forget this configuration first: its results, and what only it needs.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Delete the stages of a run that none of its configurations needs."""
    from jaxpolya.runs import configurations, overview
    from jaxpolya.runs.stages import RunDirectory

    overview.check_run(run_directory)
    with RunDirectory(run_directory).lock():
        contents = overview.look_at(run_directory, held=True)
        forgotten = configurations.at(contents.configurations, forget, "--forget") if forget is not None else None
        if forgotten:
            contents = contents.without(forgotten)
        overview.check_cleanable(contents)
        if not contents.leftovers and not forgotten:
            say("there is nothing that no configuration needs")
            return
        total = overview.readable(sum(stage.bytes for stage in contents.leftovers))
        for stage in contents.leftovers:
            say(f"{overview.readable(stage.bytes):>9}  {stage.directory.name}")
        what = f"{len(contents.leftovers)} stages, {total}" + (f", and the results of {forget}" if forgotten else "")
        if not yes and not typer.confirm(f"Delete {what}?"):
            say("nothing was deleted")
            return
        if forgotten:
            configurations.forget(run_directory, forgotten)
        overview.remove(contents.leftovers)
        say(f"deleted {what}")


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
