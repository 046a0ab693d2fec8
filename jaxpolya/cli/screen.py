"""What is said where: results on standard output, what goes with them on standard error."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from jaxpolya.report.tables import Table
    from jaxpolya.results import Results

console, errors = Console(), Console(stderr=True)


def say(text: str) -> None:
    """One line, which nothing breaks: what stands in it can be pasted."""
    console.print(Text(text), soft_wrap=True)


def note(text: str | None) -> None:
    """A line beside the result, if there is anything to say."""
    if text:
        errors.print(Text(text), soft_wrap=True)


def show_table(table: "Table") -> None:
    """A table, in as many pieces as the screen's width asks for."""
    for part in table.within(console.width):
        console.print(part.to_rich(console.width))
        console.print()


def show_results(results: "Results", directory: Path) -> None:
    """The tables of a run's results, what its audits warn of, and where to read on."""
    from jaxpolya.report.tables import audit_warnings, screen_tables

    for table in screen_tables(results):
        show_table(table)
    for words in audit_warnings(results):
        say(f"warning: {words}")
    say(f"best arm: {results.best}; report: {directory / 'report.md'}")
    say(f"page: {directory / 'report.html'}")
    if (directory / "export").exists():
        say(f"its model: {directory / 'export'}, for transformers' AutoModelForCausalLM")
