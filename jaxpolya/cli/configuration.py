"""Commands on configurations: init, config."""

import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from jaxpolya.cli.options import Overrides
from jaxpolya.cli.screen import console, say

if TYPE_CHECKING:
    from jaxpolya.config.explain import Section


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Is made; nothing in it is replaced.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A Hugging Face directory or hub name, or a .gguf file; unset is SmolLM2-135M-Instruct's name."),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own JSON lines of questions and answers, in place of sample ones.", show_default=False),
    ] = None,
) -> None:
    """Start a run of your own: a configuration, a reward and a few questions, which run as they are on a CPU."""
    from jaxpolya.starter import start

    written = start(directory, model, questions)
    say(f"wrote {', '.join(map(str, written))}")
    say(f"next: jaxpolya run {shlex.quote(str(written[0]))}")


def config(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="The run, a YAML file; with --explain a key, such as rl.sampling.", show_default=False),
    ] = None,
    set_: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each field means: all of them, or those below a key.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --explain: as the page docs/configuration.md.")] = False,
) -> None:
    """Print the resolved configuration, every field written out; or explain the fields."""
    from jaxpolya.config import explain as config_explain
    from jaxpolya.config.file import dump_config, load_config
    from jaxpolya.errors import ConfigError

    if explain:
        if set_:
            raise ConfigError("--explain says what fields mean, whatever they are set to; leave --set away")
        sections = config_explain.explain(config)
        if markdown:
            sys.stdout.write(config_explain.to_markdown(sections))
        else:
            _explain(sections)
        return
    if markdown:
        raise ConfigError("--markdown goes with --explain")
    if config is None:
        raise ConfigError("name a CONFIG to resolve, or ask what fields there are with jaxpolya config --explain")
    sys.stdout.write(dump_config(load_config(config, set_ or [])))


def _explain(sections: "list[Section]") -> None:
    for section in sections:
        say("")
        console.print(Text(", ".join(filter(None, section.places)) or section.title, style="bold underline"))
        say(textwrap.fill(section.meaning, console.width))
        for field in section.fields:
            default = "" if field.takes == "section" else f"; default {field.default}"
            fallback = "; required" if field.default == "required" else default
            mark = f" ({field.mark})" if field.mark else ""
            console.print(Text.assemble("  ", (field.name, "bold"), (f"  {field.takes}{fallback}{mark}", "dim")), soft_wrap=True)
            say(textwrap.fill(field.meaning, console.width, initial_indent="      ", subsequent_indent="      "))
