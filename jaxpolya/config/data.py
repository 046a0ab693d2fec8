"""Where fine-tuning data comes from: what the base model is asked, and what is kept of its answers."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import NonNegativeInt, PositiveInt

from jaxpolya.config.base import CONTENT, LATER, Door, Fraction, Seed, Strict, known
from jaxpolya.config.model import Sampling
from jaxpolya.config.paths import PLACE
from jaxpolya.config.questions import Sources

ADHERENCES = ("pmi", "reward_model")
"""The scorers of adherence that are built in; see `score.adherence`."""

KEEPS = ("best", "random", "diverse")
"""The rules of selection that are built in; see `polya.keep`."""


class GenerateConfig(Strict):
    """The base model answers every training question under every heuristic (paper §3: self-generated approaches)."""

    questions: Annotated[Sources, CONTENT]
    """The mid-training questions; several sources are joined."""
    sampling: Sampling
    """How the responses are drawn."""
    samples: PositiveInt = 4
    """G: responses per (question, slot). The best correct one of them is kept, so more raise the share of slots that have one."""
    heuristics: list[str] | Literal["all"] = "all"
    """Keys of the catalogue, or all of it. Those without exemplars for a question's kind are given their instruction only."""
    slots: PositiveInt | None = None
    """Approach slots: a heuristic with one draw of exemplars each, dealt in turn, no two alike; unset is one a heuristic."""
    exemplars: NonNegativeInt = 2
    """Worked examples of the heuristic that a prompt shows before the question; 0 gives the instruction alone."""
    four_phases: bool = False
    """Frame every heuristic by Pólya's four phases: understand, plan, carry out, look back."""
    catalogue: Annotated[Path | None, CONTENT, PLACE] = None
    """A YAML file that adds heuristics or replaces them by key."""
    plain_samples: PositiveInt = 8
    """Responses per question without any heuristic, for the arms that need them (STaR)."""
    seed: Seed = 0
    """Seed of sampling and of the exemplar draws."""


class SelectConfig(Strict):
    """Which correct responses become fine-tuning data."""

    n: PositiveInt = 4
    """n: approaches kept per question, at most (paper: 1 … 64)."""
    adherence: Annotated[Door, known(ADHERENCES)] = "pmi"
    """Who says how well a response follows its heuristic: the base model's pointwise mutual information (`pmi`), a reward model
    (`reward_model`), or a function of one's own, `module:attribute` or `path/to/file.py:attribute` (docs/extending.md)."""
    keep: Annotated[Door, known(KEEPS), LATER] = "best"
    """Which of the responses to a question are kept, no two of one slot: the ones of best adherence (`best`), random ones (`random`), those
    that are good and differ most (`diverse`), or a rule of one's own, `module:attribute` or `path/to/file.py:attribute`
    (docs/extending.md)."""
    quality: Annotated[Fraction, LATER] = 0.5
    """θ of `keep: diverse`: 1 looks at adherence alone, 0 at how much responses differ."""
    reward_model: Annotated[str | None, CONTENT, PLACE] = None
    """A sequence-classification checkpoint, for `adherence: reward_model`."""
    duplicate_overlap: Fraction = 0.9
    """Of two responses to a question whose token 5-gram sets overlap at least this much (Jaccard), one is kept; 1: exact copies only."""
    max_questions: PositiveInt | None = None
    """Cap on questions, drawn by `seed`: the fixed-budget ablation (few × many against many × one)."""
    match: Literal["none", "instances", "tokens"] = "none"
    """Cut all SFT arms to the smallest one's number of instances or response tokens."""
    external: Annotated[Path | None, CONTENT, PLACE] = None
    """JSON lines of `{question_id or question, response}` for the `external` arms."""
    external_verdicts: Literal["correct", "all"] = "correct"
    """Which of those traces are learned: the ones that the verifier finds correct, or all."""
    seed: Seed = 0
    """Seed of the cap (`max_questions`), of the matching cut (`match`) and of `keep: random`."""
