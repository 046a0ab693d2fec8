"""What every arm is asked at the end, and whether it was asked the same in training."""

from typing import Annotated

from pydantic import Field, PositiveInt

from jaxpolya.config.base import CONTENT, HOW, NAME, Door, Seed, Strict, known
from jaxpolya.config.model import Sampling
from jaxpolya.config.questions import Sources

JUDGES = ("none", "acts", "markers", "model")
"""Who is built in of those who say which heuristics a solution uses; see `evaluation.judges`."""

KERNELS = ("ngram",)
"""What is built in of similarities of responses; see `evaluation.diversity`."""


class EvalConfig(Strict):
    """Unbiased pass@k of every arm on every question set."""

    questions: Annotated[dict[Annotated[str, Field(pattern=NAME)], Sources], CONTENT] = Field(min_length=1)
    """Question sets by name, each a list of sources. The first one decides which arm is the best."""
    sampling: Sampling
    """How responses are drawn for pass@k and the majority vote."""
    samples: PositiveInt = 16
    """Responses per question; pass@k is reported for k up to it."""
    greedy: bool = False
    """Ask each question once more at temperature 0, and report that accuracy too."""
    bootstrap: Annotated[PositiveInt, HOW] = 1000
    """Resamples of the questions behind each 95 % interval."""
    composition: Annotated[Door, known(JUDGES)] = "acts"
    """Who says which heuristics a solution uses: `none`, `acts` (rules that look for what is done), `markers` (the catalogue's), `model`
    (the base model is asked; slow), or a judge of your own (docs/composition.md)."""
    kernel: Annotated[Door, known(KERNELS), HOW] = "ngram"
    """How similar two responses are, for the Vendi score: `ngram`, or a kernel of your own (docs/diversity.md). No stage rests on it."""
    seed: Seed = 0
    """Seed of sampling and of the bootstrap."""


class ContaminationConfig(Strict):
    """The search for training questions that an evaluation set asks too."""

    n: PositiveInt = 13
    """Words in a row that make two questions overlap; a question with fewer is compared as a whole."""
    drop: bool = False
    """Leave overlapping questions out of training, instead of only reporting them."""
