"""The command line. jax is imported only by the commands that compute.

Mistakes end in one sentence and an exit code that means something (`jaxpolya.errors.EXIT_CODES`); only a bug of ours shows a
traceback. Ctrl-C and a polite kill leave a run that the same command goes on with.
"""

import contextlib
import difflib
import importlib.util
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast, get_args

import typer
from rich.console import Console
from rich.text import Text

from jaxpolya.errors import EXIT_CODES, JaxpolyaError, machine_trouble

HELP = """
A language model teaches itself several ways to solve a problem, then learns from rewards.

Pólya mid-training and RL in JAX and Flax (arXiv 2605.08472). Begin with `jaxpolya run configs/quickstart.yaml`. The same command
goes on after an interruption. At the end, read `runs/NAME/report.md`; `jaxpolya show runs/NAME` says how far it has come.
"""
EPILOG = "Exit codes:\n\n" + "\n".join(f"- {code}: {meaning}" for code, meaning in EXIT_CODES.items())

INTERRUPTED = 130
GO_ON = "interrupted; what was finished is kept: give the same command again to go on"

app = typer.Typer(
    help=HELP, epilog=EPILOG, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, add_completion=False
)
console, errors = Console(), Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The run, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.KEY=VALUE",
        help="Override one key with a YAML value; lists by index, as in rl.questions.0.limit=50. Repeatable.",
    ),
]


@app.command()
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
        overrides.append(f"arms=[{', '.join(_arms(arms))}]")
    loaded = load_config(config, overrides)
    _start_jax()
    from jaxpolya.parallel.mesh import is_primary
    from jaxpolya.progress import Display
    from jaxpolya.runs import pipeline

    results = pipeline.run(loaded, Display(errors, quiet=quiet or not is_primary()), only=only)
    if results is not None and is_primary():
        _show(results, loaded.output / loaded.name)


@app.command("eval")
def evaluate(
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A Hugging Face directory or hub name, a .gguf file, or a run directory (its best arm).")
    ],
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="A YAML file whose question sets to ask.", show_default=False)
    ] = None,
    benchmarks: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Such as gsm8k,math500; docs/benchmarks.md lists them.", show_default=False)
    ] = None,
    benchmarks_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", envvar="JAXPOLYA_BENCHMARKS", help="Local copies: DIR/NAME.jsonl, or DIR/NAME from the hub.", show_default=False
        ),
    ] = None,
    registry: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file of benchmarks of your own.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Questions of each benchmark at most.", min=1, show_default=False)] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="Responses per question; unset is the config's, else 16.", min=1, show_default=False)
    ] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="0 is greedy.", min=0, show_default=False)] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="P", help="Draw from the likeliest tokens of this mass.", show_default=False)
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Longest response; unset is the config's, else 1024.", min=1, show_default=False),
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Ask each question once more at temperature 0.")] = False,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Evaluate this one too, and say how the two differ.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where run directories lie; unset is the config's, else runs.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the evaluation's own run directory; unset is made from both.", show_default=False)
    ] = None,
    set_: Overrides = None,
) -> None:
    """Evaluate any checkpoint on benchmarks, or on a config's question sets: pass@k, majority and greedy accuracy, with intervals.

    The result is a run with the one arm `base`: `jaxpolya show` reads it, and the same command goes on after an interruption.
    """
    from jaxpolya.progress import Display
    from jaxpolya.report.tables import comparison_table
    from jaxpolya.runs.compare import Evaluation, compare_models
    from jaxpolya.runs.compare import evaluate as evaluated

    drawn = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    settings: dict[str, Any] = {f"eval.sampling.{key}": value for key, value in drawn.items()}
    settings |= {"eval.samples": samples, "eval.greedy": greedy or None, "output": output and str(output)}
    keys = tuple(key.strip() for key in (benchmarks or "").split(",") if key.strip())
    asked = Evaluation(config, keys, registry, benchmarks_dir, limit, settings, tuple(set_ or ()), name)
    runs = asked.runs(model, against)
    _start_jax()
    from jaxpolya.parallel.mesh import is_primary

    done = []
    for evaluation in evaluated(runs, Display(errors, quiet=not is_primary())):
        done.append(evaluation)
        if is_primary():
            _show(evaluation.results, evaluation.run.output / evaluation.run.name)
    if against and is_primary():
        console.print(comparison_table(compare_models(*done)).to_rich())


@app.command()
def verify(
    source: Annotated[
        Path,
        typer.Option("--in", metavar="FILE", help="JSON lines of {id, response, answer | tests | choices | entry, question?, prompt?}."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Verdicts, JSON lines of {id, verdict, extracted, detail?} in the same order.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="math, code, choice or reasoning_gym for all rows; unset goes by each row.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes; unset is the number of cores.", min=1, show_default=False)
    ] = None,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="For one verdict; then it is `timeout`.", min=0.1)] = 10.0,
    unevaluated: Annotated[
        str,
        typer.Option(
            metavar="refuse|accept",
            help="Of an answer that equals the reference without having been worked out (97 * 49 for 4753): accept pays it, as other "
            "graders do; for comparing figures only.",
        ),
    ] = "refuse",
    modules: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Third-party modules that programs may import, such as numpy,pandas.",
            show_default="the standard library's",
        ),
    ] = "",
) -> None:
    """Grade a file of answers. Needs no model and no jax."""
    from jaxpolya.errors import ConfigError
    from jaxpolya.progress import Display, Task
    from jaxpolya.records import Kind, Unevaluated
    from jaxpolya.verify.files import verify_file
    from jaxpolya.verify.judge import Policy

    if kind not in (None, *get_args(Kind)):
        raise ConfigError(f"--kind {kind}: choose one of {', '.join(get_args(Kind))}")
    if unevaluated not in get_args(Unevaluated):
        raise ConfigError(f"--unevaluated {unevaluated}: choose one of {', '.join(get_args(Unevaluated))}")
    with contextlib.ExitStack() as stack:
        bar: list[Task] = []  # made when the number of rows is known

        def progress(done: int, total: int) -> None:
            if not bar:
                bar.append(stack.enter_context(Display(errors).task("verify", total)))
            bar[0].advance(1)

        policy = Policy(unevaluated=cast(Unevaluated, unevaluated), modules=tuple(filter(None, re.split(r"[\s,]+", modules))))
        report = verify_file(
            source, out, kind=cast(Kind | None, kind), workers=workers, deadline=deadline, policy=policy, progress=progress
        )
    counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(report["verdicts"].items(), key=lambda item: -item[1]))
    _say(f"{report['rows']} rows in {report['seconds']:.1f} s ({report['rows_per_second']:.0f} a second): {counts}. Verdicts: {out}")
    if report["sandbox"]:
        _say(f"warning: {report['sandbox']}")
    if unevaluated == "accept":
        _say(
            "warning: answers that were not worked out were accepted (--unevaluated accept); these figures compare with other graders' only"
        )


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Hugging Face directory or hub name, or a .gguf file.", show_default=False)
    ],
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY",
            help="Where jaxpolya's own sharded layout is written, also gs://…; a directory that jaxpolya wrote before is replaced.",
            show_default=False,
        ),
    ],
    revision: Annotated[str | None, typer.Option(metavar="REVISION", help="Commit or tag of a hub model.", show_default=False)] = None,
) -> None:
    """Bring a checkpoint in: convert it once, for fast starts on many devices."""
    _check_destination(directory, source)
    _start_jax()
    from jaxpolya.hf.checkpoint import load_checkpoint, save_checkpoint
    from jaxpolya.hf.origin import origin_of
    from jaxpolya.parallel.mesh import make_mesh

    checkpoint = load_checkpoint(source, mesh=make_mesh(), revision=revision)
    _note(checkpoint.meta.note)
    save_checkpoint(directory, checkpoint.params, checkpoint.meta, origin=origin_of(source, revision))
    _say(f"wrote {directory}; use it as model.source")


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A run directory (its best arm), or any checkpoint.", show_default=False)],
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY",
            help="The Hugging Face directory to write, also gs://…; a directory that jaxpolya wrote before is replaced.",
            show_default=False,
        ),
    ],
    arm: Annotated[str | None, typer.Option(metavar="ARM", help="Of a run: this arm instead of the best.", show_default=False)] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE", help="bfloat16, float16 or float32; unset is as the base model's own files have it.", show_default=False
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="REVISION", help="Commit or tag of a hub model.", show_default=False)] = None,
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Of one file of weights: a whole number of KB, MB or GB.")] = "50GB",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Load what was written with transformers (needs torch), and compare its logits with ours; takes memory for the model in "
            "float32 once more. If they differ, nothing is written.",
        ),
    ] = False,
) -> None:
    """Take a model home as a Hugging Face directory that transformers loads, with a model card."""
    from jaxpolya.errors import ConfigError, MachineError
    from jaxpolya.runs.results import arm_of_model, arm_of_run, model_of_run
    from jaxpolya.runs.stages import source_commit

    if dtype not in (None, "bfloat16", "float16", "float32"):
        raise ConfigError(f"--dtype {dtype}: choose bfloat16, float16 or float32")
    if not re.fullmatch(r"0*[1-9]\d*[KMG]B", max_shard_size, re.IGNORECASE):
        raise ConfigError(f"--max-shard-size {max_shard_size}: write it as a whole number of KB, MB or GB, such as 5GB")
    if verify and importlib.util.find_spec("torch") is None:
        raise MachineError("--verify needs torch, for transformers' own forward pass: pip install torch, or export without --verify")
    model = model_of_run(Path(source), arm)
    if arm and model is None:
        raise ConfigError(f"--arm {arm}: {source} is not a run directory, so it has no arms")
    if revision and model:
        raise ConfigError(f"--revision {revision}: {source} is a run directory; a revision is of a hub model")
    of_run = arm_of_run(Path(source), arm) if model else arm_of_model(Path(source))
    source = model or source
    _check_destination(directory, source)
    _start_jax()
    from jaxpolya.hf.check_export import compare_export
    from jaxpolya.hf.checkpoint import export_checkpoint, fingerprint, load_checkpoint
    from jaxpolya.hf.origin import origin_of
    from jaxpolya.parallel.mesh import is_primary, make_mesh
    from jaxpolya.report.card import checkpoint_card, run_card

    mesh = make_mesh()
    if of_run and source == of_run[0]["run"]["model"]:  # a run says itself of which revision its base model is
        revision = of_run[0]["config"]["model"]["revision"]
    checkpoint = load_checkpoint(source, mesh=mesh, revision=revision)
    _note(checkpoint.meta.note)
    if of_run:
        card = run_card(*of_run)
    else:
        card = checkpoint_card(source, fingerprint(source, revision), origin_of(source, revision), source_commit())

    def check(written: Any) -> None:
        agreement = compare_export(written, checkpoint, mesh)
        if is_primary():
            _say(f"verify: {agreement}")

    export_checkpoint(
        directory,
        checkpoint.params,
        checkpoint.meta,
        dtype=cast(Any, dtype),
        max_shard_size=max_shard_size,
        card=card,
        check=check if verify else None,
    )
    _say(f"wrote {directory} ({source})")


@app.command()
def show(run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)]) -> None:
    """Show what a run has done and found."""
    from jaxpolya.runs.results import read_results, show_stages, stage_warnings

    for line in show_stages(run_directory):
        _say(line)
    results = read_results(run_directory)
    if results is not None:
        _show(results, run_directory)
    else:
        for words in stage_warnings(run_directory):
            _say(f"warning: {words}")


@app.command()
def config(config: ConfigPath, set_: Overrides = None) -> None:
    """Print the resolved configuration, every field written out."""
    from jaxpolya.config_file import dump_config, load_config

    sys.stdout.write(dump_config(load_config(config, set_ or [])))


def _check_destination(directory: str, source: str) -> None:
    """Raises `ConfigError` where writing a model to a directory would replace the one that is read, or a part of a run."""
    from jaxpolya.errors import ConfigError

    if "://" in directory:
        if directory.rstrip("/") == source.rstrip("/"):
            raise ConfigError(f"{directory} is the model that is read; name another directory to write to")
        return
    target, origin = (Path(os.path.realpath(Path(name).expanduser())) for name in (directory, source))
    if origin.exists() and origin.is_relative_to(target):
        raise ConfigError(f"{directory} holds the model that is read, and would be replaced; name another directory to write to")
    for parent in target.parents:
        if parent.name == "stages" and (parent.parent / "config.yaml").exists():
            raise ConfigError(f"{directory} lies in the stages of the run {parent.parent}, which are its own; name another directory")


def _arms(text: str) -> list[str]:
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


def _show(results: dict[str, Any], directory: Path) -> None:
    from jaxpolya.report.tables import audit_warnings, screen_tables

    for table in screen_tables(results):
        console.print(table.to_rich())
    for words in audit_warnings(results):
        _say(f"warning: {words}")
    _say(f"best arm: {results['best']}; report: {directory / 'report.md'}")
    if (directory / "export").exists():
        _say(f"its model: {directory / 'export'}, for transformers' AutoModelForCausalLM")


def _say(text: str) -> None:
    """One line, which nothing breaks: what stands in it can be pasted."""
    console.print(Text(text), soft_wrap=True)


def _note(text: str | None) -> None:
    """A line beside the result, if there is anything to say."""
    if text:
        errors.print(Text(text), soft_wrap=True)


def _start_jax() -> None:
    """Joins the pod, if there is one, turns on the compile cache, and keeps the libraries' threads quiet.

    What Orbax's threads meet (a full disk, say) is raised to us as well; their own tracebacks would bury the one sentence.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own, and would say everything twice
    sys.unraisablehook = lambda caught: None if "Event loop is closed" in str(caught.exc_value) else sys.__unraisablehook__(caught)
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "jaxpolya" / "compiled"))
    if os.environ.get("JAXPOLYA_DISTRIBUTED") == "1":
        jax.distributed.initialize()


# Errors ----------------------------------------------------------------------------------------------------------------


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


if __name__ == "__main__":
    entry()
