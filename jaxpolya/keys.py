"""What the stages of a run are called: a typed key, of which names of directories and tables are made in one place."""

from typing import Literal, NamedTuple


class Key(NamedTuple):
    """Which stage of a run: what it does, for which use, recipe or arm, and on which question set."""

    what: Literal["questions", "contamination", "traces", "generate", "select", "sft", "rl", "eval", "greedy", "labels"]
    of: str = ""
    set: str = ""

    @property
    def name(self) -> str:
        """The stage's name, as its directory begins."""
        return "-".join(filter(None, self))
