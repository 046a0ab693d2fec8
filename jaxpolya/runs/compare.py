"""`jaxpolya eval`: any checkpoint on named benchmarks or on a configuration's question sets, alone or against another one.

An evaluation is a run whose only arm is `base`, so everything that a run has comes with it: stages that go on after a kill,
verdicts kept, results.json, report.md. All that happens here is that the command line becomes that run's configuration, and that
the answers of two such runs are compared question by question.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.arms import BASE
from jaxpolya.config import RunConfig
from jaxpolya.config.file import parse_config, read_yaml
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.evaluation.audit import ACCEPTED
from jaxpolya.evaluation.benchmarks import load_registry
from jaxpolya.evaluation.measures import Answers, compare
from jaxpolya.files import digest, write_whole
from jaxpolya.progress import Display
from jaxpolya.records import write_json
from jaxpolya.report.tables import comparison_table
from jaxpolya.results import Comparison, Difference, Results
from jaxpolya.runs.configurations import settings_of
from jaxpolya.runs.results import model_of_run, read_answers
from jaxpolya.runs.stages import Stage

MAX_NEW_TOKENS = 1024
"""Longest response where neither a configuration nor the command line says; long chains of thought need more."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is asked of the models; None leaves a setting to the configuration, or to its default."""

    config: Path | None = None
    benchmarks: tuple[str, ...] = ()
    registry: Path | None = None
    """A YAML file of benchmarks, laid over the built-in ones."""
    directory: Path | None = None
    """Local copies of benchmarks."""
    limit: int | None = None
    """Questions of each benchmark at most."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Dotted key of the configuration → value; None is no setting."""
    overrides: tuple[str, ...] = ()
    """`a.b=value` as the user wrote them; they win over the configuration and the benchmarks, and lose against `settings`."""
    name: str | None = None
    """Of the evaluation's run directory; None is made from the configuration and the model."""

    def runs(self, model: str, against: str | None = None) -> list[RunConfig]:
        """The run that evaluates a model, and the other one's. Raises `ConfigError` and `InputError`, as reading a configuration does."""
        runs = [self._run(model)]
        if against is not None:
            other = self._run(against)
            # Two checkpoints may go by one name, and one name was given for the first.
            name = f"{runs[0].name}-against-{_name(against)}" if other.name == runs[0].name else other.name
            runs.append(other.model_copy(update={"name": name}))
        return runs

    def _run(self, model: str) -> RunConfig:
        if self.config is None and not self.benchmarks:
            raise ConfigError("there is nothing to ask: name benchmarks (--benchmarks gsm8k,math500), or a CONFIG with question sets")
        tree = read_yaml(self.config) if self.config else {"name": "eval", "eval": {"sampling": {"max_new_tokens": MAX_NEW_TOKENS}}}
        source = model_of_run(Path(model)) or model
        run = parse_config(tree, self._overrides(source), where=str(self.config or "jaxpolya eval"), file=self.config)
        made = f"{run.name}-eval-{_name(model)}" if self.config else f"{run.name}-{_name(model)}"
        run = run if self.name else run.model_copy(update={"name": made})
        return self._with_earlier(run)

    def _with_earlier(self, run: RunConfig) -> RunConfig:
        """The run with the question sets that were asked before in its directory, where all else is as it was: nothing is asked again."""
        path = run.output / run.name / "config.yaml"
        with contextlib.suppress(ConfigError, InputError):
            earlier = parse_config(read_yaml(path))
            sets = {**earlier.eval.questions, **run.eval.questions}
            both = run.model_copy(update={"eval": run.eval.model_copy(update={"questions": sets})})
            as_before = earlier.model_copy(update={"eval": earlier.eval.model_copy(update={"questions": sets})})
            if settings_of(both) == settings_of(as_before):
                return both
        return run

    def _overrides(self, source: str) -> Iterator[str]:
        for benchmark in load_registry(self.registry).pick(self.benchmarks):
            sources = [source.model_dump(mode="json") for source in benchmark.questions(self.directory, self.limit)]
            yield f"eval.questions.{benchmark.key}={json.dumps(sources)}"
        yield "model.revision=null"  # a configuration's revision is of its own model
        yield from self.overrides
        # The evaluation needs nothing of the other stages, so nothing in them may stop it.
        yield from ("arms=[base]", "export=false", "generate=null", "select={}", "sft=null", "rl=null")
        for key, value in {"model.source": source, "name": self.name, **self.settings}.items():
            if value is not None:
                yield f"{key}={json.dumps(value)}"


@dataclasses.dataclass(frozen=True)
class ModelEvaluation:
    """One model's evaluation."""

    run: RunConfig
    results: Results
    """What results.json holds."""
    stages: dict[str, tuple[Stage, Stage, Stage | None]]
    """Question set → the stages of its questions, of the samples, and of the greedy responses."""

    def answers(self) -> dict[str, Answers]:
        """Question set → the model's answers."""
        return {name: read_answers(*stages) for name, stages in self.stages.items()}


def evaluate(runs: Sequence[RunConfig], display: Display) -> Iterator[ModelEvaluation]:
    """Evaluates one model after the other. All are checked before the first one starts. Raises `JaxpolyaError`."""
    from jaxpolya.runs.pipeline import carry_out
    from jaxpolya.runs.session import Session

    waiting = [Session(run, display) for run in runs]
    while waiting:
        session = waiting.pop(0)  # which lets go of the one before, and of its parameters
        outcome = carry_out(session)
        assert outcome is not None
        sampled, greedy = outcome.evaluations.sampled[BASE], outcome.evaluations.greedy.get(BASE, {})
        sets = {name: (outcome.questions.evaluated[name].stage, stage, greedy.get(name)) for name, stage in sampled.items()}
        yield ModelEvaluation(session.config, outcome.results, sets)


def compare_models(model: ModelEvaluation, other: ModelEvaluation) -> Comparison:
    """How much better a model is than another on each question set, over the questions that both answered (`measures.compare`).

    It is written to `against-OTHER.json` and `.md` in the first one's run directory, too. Raises `InputError` where no question is shared.
    """
    run, theirs, sets = model.run, other.answers(), {}
    for name, ours in model.answers().items():
        shared = ours.counts.keys() & theirs[name].counts.keys()
        difference = compare(ours, theirs[name], resamples=run.eval.bootstrap, seed=run.eval.seed)
        sets[name] = Difference(questions=len(shared), difference=difference)
    comparison = Comparison(model=run.model.source, against=other.run.model.source, sets=sets)
    table = comparison_table(comparison)
    accepted = f"\nWarning: {ACCEPTED}.\n" if "accept" in {one.verify.math.unevaluated for one in (run, other.run)} else ""
    directory, stem = run.output / run.name, f"against-{other.run.name}"
    write_whole(directory / f"{stem}.json", write_json(comparison.model_dump(mode="json"), f"{stem}.json", indent=1) + "\n")
    write_whole(directory / f"{stem}.md", f"# {table.title}\n\n{table.to_markdown()}\nBold: the interval leaves out 0.\n{accepted}")
    return comparison


def _name(model: str) -> str:
    """What a model is called in a directory's name; two places may hold models of one name."""
    path = Path(model)
    named = path.parent.name if path.name in ("model", "export") else path.name  # runs keep theirs under these names
    if path.exists():
        named += "-" + digest(str(path.resolve()))[:6]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", named).strip("-.") or "model"
