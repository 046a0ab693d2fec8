"""The command line. jax is imported only by the commands that compute.

Mistakes end in one sentence and an exit code that means something (`jaxpolya.errors.EXIT_CODES`); only a bug of ours shows a
traceback. Ctrl-C and a polite kill leave a run that the same command goes on with.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from jaxpolya.errors import EXIT_CODES, JaxpolyaError

HELP = f"""A language model teaches itself several ways to solve a problem, then learns from rewards.

Pólya mid-training and RL in JAX and Flax (arXiv 2605.08472). Begin with [bold]jaxpolya run configs/quickstart.yaml[/bold]; run
it again to go on after an interruption; read runs/NAME/report.md at the end.

Exit codes: {"; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())}.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False, add_completion=False)
console, errors = Console(), Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="The run, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.KEY=VALUE", help="Override one key (a YAML value); may be repeated. Lists: by index."),
]


@app.command()
def run(
    config: ConfigPath,
    set_: Overrides = None,
    only: Annotated[
        str | None, typer.Option(help="Do this phase alone: questions, generate, select, sft, rl, eval or report.", show_default=False)
    ] = None,
    arms: Annotated[str | None, typer.Option(help="Arms to run, comma-separated, instead of the config's.", show_default=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but the result.")] = False,
) -> None:
    """Run the whole method, or what is left of it.

    Every stage's directory is named by a hash of what it depends on, so the same command goes on after an interruption, and a
    changed configuration redoes only what the change touches.
    """
    from jaxpolya.config import load_config

    overrides = list(set_ or [])
    if arms:
        overrides.append(f"arms=[{arms}]")
    loaded = load_config(config, overrides)
    _start_jax()
    from jaxpolya.parallel.mesh import is_primary
    from jaxpolya.pipeline import Pipeline
    from jaxpolya.progress import Display

    results = Pipeline(loaded, Display(errors, quiet=quiet or not is_primary()), only=only).run()
    if results is not None and is_primary():
        _show(results, loaded.output / loaded.name)


@app.command("eval")
def evaluate(
    config: ConfigPath,
    model: Annotated[str, typer.Option(help="Any checkpoint: Hugging Face directory or hub name, .gguf, or one of a run's.")],
    name: Annotated[str | None, typer.Option(help="Name of the evaluation's own run directory.", show_default=False)] = None,
    set_: Overrides = None,
) -> None:
    """Evaluate any checkpoint on a config's question sets: pass@k with intervals."""
    from jaxpolya.config import load_config

    loaded = load_config(config, [*(set_ or []), "arms=[base]", "export=false", f"model.source={_quoted(model)}"])
    loaded = loaded.model_copy(update={"name": name or f"{loaded.name}-eval-{Path(model).name or 'model'}"})
    _start_jax()
    from jaxpolya.pipeline import Pipeline
    from jaxpolya.progress import Display

    results = Pipeline(loaded, Display(errors)).run()
    if results is not None:
        _show(results, loaded.output / loaded.name)


@app.command()
def verify(
    source: Annotated[Path, typer.Option("--in", help="JSON lines of {id, response, answer | choices | entry}.")],
    out: Annotated[Path, typer.Option("--out", help="Verdicts, JSON lines of {id, verdict, extracted}.")],
    kind: Annotated[str | None, typer.Option(help="math, choice or reasoning_gym, where rows don't say.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; unset is the number of cores.", min=1, show_default=False)] = None,
    deadline: Annotated[float, typer.Option(help="Seconds for one verdict.", min=0.1)] = 10.0,
) -> None:
    """Grade a file of answers. Needs no model and no jax."""
    from jaxpolya.progress import Display
    from jaxpolya.verify.files import verify_file

    with Display(errors).task("verify", 0) as task:
        report = verify_file(source, out, kind=kind, workers=workers, deadline=deadline, progress=lambda done, total: task.advance(0))  # type: ignore[arg-type]
    counts = ", ".join(f"{number} {verdict}" for verdict, number in report["verdicts"].items())
    rate = report["rows"] / max(report["seconds"], 1e-9)
    console.print(f"{report['rows']} rows in {report['seconds']:.1f} s ({rate:.0f} a second): {counts}. Verdicts: {out}", highlight=False)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Hugging Face directory or hub name, or a .gguf file.", show_default=False)],
    directory: Annotated[Path, typer.Argument(help="Where jaxpolya's own sharded layout is written.", show_default=False)],
    revision: Annotated[str | None, typer.Option(help="Commit or tag of a hub model.", show_default=False)] = None,
) -> None:
    """Bring a checkpoint in: convert it once, for fast starts on many devices."""
    _start_jax()
    from jaxpolya.hf.checkpoint import load_checkpoint, save_checkpoint
    from jaxpolya.parallel.mesh import make_mesh

    checkpoint = load_checkpoint(source, mesh=make_mesh(), revision=revision)
    save_checkpoint(directory, checkpoint.params, checkpoint.meta)
    console.print(f"wrote {directory}; use it as model.source", highlight=False)


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="A run's directory (its best arm), or any checkpoint.", show_default=False)],
    directory: Annotated[Path, typer.Argument(help="The Hugging Face directory to write.", show_default=False)],
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    arm: Annotated[str | None, typer.Option(help="Of a run: this arm instead of the best.", show_default=False)] = None,
) -> None:
    """Take a model home as a Hugging Face directory that transformers loads."""
    from jaxpolya.errors import ConfigError
    from jaxpolya.results import model_of_run

    if dtype not in ("bfloat16", "float16", "float32"):
        raise ConfigError(f"--dtype {dtype}: choose bfloat16, float16 or float32")
    source = model_of_run(Path(source), arm) or source
    _start_jax()
    from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
    from jaxpolya.parallel.mesh import make_mesh

    checkpoint = load_checkpoint(source, mesh=make_mesh())
    export_checkpoint(directory, checkpoint.params, checkpoint.meta, dtype=dtype)  # type: ignore[arg-type]
    console.print(f"wrote {directory} ({source}, {dtype})", highlight=False)


@app.command()
def show(run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.", show_default=False)]) -> None:
    """Show what a run has done and found."""
    from jaxpolya.results import read_results, show_stages

    for line in show_stages(run_directory):
        console.print(line, highlight=False)
    results = read_results(run_directory)
    if results is not None:
        _show(results, run_directory)


@app.command()
def config(config: ConfigPath, set_: Overrides = None) -> None:
    """Print the resolved configuration, every field written out."""
    from jaxpolya.config import dump_config, load_config

    sys.stdout.write(dump_config(load_config(config, set_ or [])))


def _show(results: dict[str, Any], directory: Path) -> None:
    from jaxpolya.report.tables import screen_tables

    for table in screen_tables(results):
        console.print(table.to_rich())
    console.print(f"best arm: {results['best']}; report: {directory / 'report.md'}", highlight=False)
    if (directory / "export").exists():
        console.print(f"its model: {directory / 'export'}, for transformers' AutoModelForCausalLM", highlight=False)


def _start_jax() -> None:
    """Joins the pod, if there is one, and turns on the compile cache."""
    import jax

    cache = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", Path.home() / ".cache" / "jaxpolya" / "compiled"))
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if os.environ.get("JAXPOLYA_DISTRIBUTED") == "1":
        jax.distributed.initialize()


def _quoted(value: str) -> str:
    import json

    return json.dumps(value)


# Errors ----------------------------------------------------------------------------------------------------------------


def main() -> NoReturn:
    """The `jaxpolya` command."""
    with _polite_kill():
        try:
            app(standalone_mode=False)
            sys.exit(0)
        except typer.Exit as stop:
            sys.exit(stop.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            _leave("interrupted; nothing is lost, the same command goes on from here", 130)
        except JaxpolyaError as error:
            _leave(str(error), error.exit_code)
        except Exception as error:
            usage = getattr(error, "format_message", None)  # click's own errors
            if usage is not None:
                _leave(f"{usage()}; see jaxpolya --help", 2)
            if remedy := _machine_trouble(error):
                _leave(remedy, 5)
            raise


def _leave(message: str, code: int) -> NoReturn:
    errors.print(f"[bold red]jaxpolya:[/bold red] {_escape(message)}", highlight=False, soft_wrap=True)
    sys.stderr.flush()
    sys.exit(code)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _machine_trouble(error: BaseException | None) -> str | None:
    """What to do about a full disk, a forbidden path or full device memory, wherever in a chain of errors it was noticed."""
    while error is not None:
        text = str(error)
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
            return "the disk is full; free some space, or set `output` to another disk. What was finished is kept: the same command goes on"
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            return f"no permission: {text}"
        if "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
            return (
                "the device's memory is full; lower decode.rows or batching.micro_rows, set batching.remat to block, or shard over more "
                f"devices (mesh). The device said: {text.splitlines()[0][:300]}"
            )
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _polite_kill() -> Iterator[None]:
    """SIGTERM, which preemption sends, ends a run as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
