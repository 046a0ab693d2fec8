"""The command that evaluates any checkpoint: eval."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jaxpolya.cli import devices
from jaxpolya.cli.options import Overrides
from jaxpolya.cli.screen import console, errors, show_results


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
    devices.start_jax()
    from jaxpolya.parallel.mesh import is_primary

    devices.settle()
    done = []
    for evaluation in evaluated(runs, Display(errors, quiet=not is_primary())):
        done.append(evaluation)
        if is_primary():
            show_results(evaluation.results, evaluation.run.output / evaluation.run.name)
    if against and is_primary():
        console.print(comparison_table(compare_models(*done)).to_rich())
