"""All commands, in the order in which the help lists them."""

from typing import Annotated

import typer

from jaxpolya import __version__
from jaxpolya.cli.answers import verify
from jaxpolya.cli.checkpoints import export, import_
from jaxpolya.cli.configuration import config, init
from jaxpolya.cli.evaluation import evaluate
from jaxpolya.cli.runs import clean, compare, run, show, sweep
from jaxpolya.cli.screen import say
from jaxpolya.errors import EXIT_CODES

HELP = """
A language model teaches itself several ways to solve a problem, then learns from rewards.

Pólya mid-training and RL in JAX and Flax (arXiv 2605.08472). Begin with `jaxpolya run configs/quickstart.yaml`. The same command
goes on after an interruption. At the end, open `runs/NAME/report.html`, or read `report.md`; `jaxpolya show runs/NAME`
says how far it has come.
"""


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"jaxpolya {__version__}")
        raise typer.Exit


EPILOG = "Exit codes:\n\n" + "\n".join(f"- {code}: {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _itself(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say which version this is.")] = False,
) -> None:
    pass


app.command()(init)
app.command()(run)
app.command()(sweep)
app.command("eval")(evaluate)
app.command()(compare)
app.command()(verify)
app.command("import")(import_)
app.command()(export)
app.command()(show)
app.command()(clean)
app.command()(config)
