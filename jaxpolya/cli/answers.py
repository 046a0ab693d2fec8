"""The command that grades a file of answers: verify."""

import contextlib
import re
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from jaxpolya.cli.screen import errors, say


def verify(
    source: Annotated[
        Path,
        typer.Option("--in", metavar="FILE", help="JSON lines of {id, response, answer | tests | choices | entry, question?, prompt?}."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Verdicts, JSON lines of {id, verdict, extracted, score?, detail?} in the same order."),
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="math, code, choice or reasoning_gym for all rows, or path/to/file.py:attribute of a verifier of your own; unset goes by "
            "each row.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes; unset is the number of cores, at most 16.", min=1, show_default=False)
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
    from jaxpolya.records import Unevaluated
    from jaxpolya.verify.files import verify_file
    from jaxpolya.verify.judge import Policy
    from jaxpolya.verify.kinds import bring

    if kind is not None:
        bring(kind, "--kind")
    if unevaluated not in get_args(Unevaluated):
        raise ConfigError(f"--unevaluated {unevaluated}: choose one of {', '.join(get_args(Unevaluated))}")
    with contextlib.ExitStack() as stack:
        bar: list[Task] = []  # made when the number of rows is known

        def progress(done: int, total: int) -> None:
            if not bar:
                bar.append(stack.enter_context(Display(errors).task("verify", total)))
            bar[0].advance(1)

        policy = Policy(unevaluated=cast(Unevaluated, unevaluated), modules=tuple(filter(None, re.split(r"[\s,]+", modules))))
        report = verify_file(source, out, kind=kind, workers=workers, deadline=deadline, policy=policy, progress=progress)
    counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(report["verdicts"].items(), key=lambda item: -item[1]))
    say(f"{report['rows']} rows in {report['seconds']:.1f} s ({report['rows_per_second']:.0f} a second): {counts}. Verdicts: {out}")
    if report["sandbox"]:
        say(f"warning: {report['sandbox']}")
    if unevaluated == "accept":
        say(
            "warning: answers that were not worked out were accepted (--unevaluated accept); these figures compare with other graders' only"
        )
