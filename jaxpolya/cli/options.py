"""What several commands are told in the same way."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The run, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.KEY=VALUE",
        help="Override one key with a YAML value; lists by index, as in rl.questions.0.limit=50. Repeatable.",
    ),
]
