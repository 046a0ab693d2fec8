"""The order of a run, and what is left when it is done.

    questions ─► generate ─► select ─► sft ─► rl ─► eval ─► report

A phase is a function of the session and of what the phases before it found; it returns what it found. Arms share every stage that
they have in common. Whole stages are skipped, broken-off ones go on (`stages`).
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxpolya.arms import Arm
from jaxpolya.config import RunConfig
from jaxpolya.files import write_whole
from jaxpolya.hf.checkpoint import export_checkpoint
from jaxpolya.hf.origin import origin_of
from jaxpolya.parallel.hosts import from_primary
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.progress import Display
from jaxpolya.report.card import run_card
from jaxpolya.report.html import write_page
from jaxpolya.report.html.evidence import Evidence
from jaxpolya.report.page import write_report
from jaxpolya.results import Results
from jaxpolya.runs.configurations import place, publish
from jaxpolya.runs.evaluate import Evaluations, evaluate
from jaxpolya.runs.evidence import gather
from jaxpolya.runs.generate import generate
from jaxpolya.runs.questions import Questions, ask_questions
from jaxpolya.runs.results import collect_results, example_samples
from jaxpolya.runs.seeds import OfSeed, over_seeds
from jaxpolya.runs.select import select
from jaxpolya.runs.session import Enough, Model, Session
from jaxpolya.runs.train import fine_tune, reinforce


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run that is done."""

    results: Results
    """What results.json holds."""
    questions: Questions
    evaluations: Evaluations


def run(config: RunConfig, display: Display | None = None, *, only: str | None = None) -> Results | None:
    """Does what is left of a run, or of one phase of it. Returns what results.json holds; None where `only` names an earlier phase.

    Raises:
      JaxpolyaError: the run can't be done, or can't go on; what is done stays done.
    """
    if config.seeds:
        return _run_seeds(config, display or Display(), only)
    outcome = carry_out(Session(config, display, only=only))
    return outcome.results if outcome else None


def _run_seeds(config: RunConfig, display: Display, only: str | None) -> Results | None:
    """The run once for each seed, and what they found together."""
    by_seed: dict[int, OfSeed] = {}
    for seed in config.seeds:
        display.note(f"seed {seed}, of {', '.join(map(str, config.seeds))}")
        session = Session(config.with_seed(seed), display, only=only)
        if outcome := carry_out(session):
            by_seed[seed] = OfSeed.of(outcome.results, outcome.evaluations, session.stages)
        del session  # and its parameters
    if not by_seed:
        return None
    session, results = Session(config, display), over_seeds(config, by_seed)
    with session.opened():
        if is_primary():
            session.note_stages(stage.directory.name for one in by_seed.values() for stage in one.stages.values())
            first, *others = by_seed.values()
            samples = example_samples(first.evaluations.sampled, first.stages)
            _write(session, results, samples, gather(config, first.stages, [other.stages for other in others]))
        if config.export:
            _export(session, results, {arm: Model.named(session.directory.path, source) for arm, source in results.models.items()})
    return results


def carry_out(session: Session) -> Outcome | None:
    """As `run`, for a session that was made (and so checked) before."""
    with session.opened(), contextlib.suppress(Enough):
        questions = session.phase("questions", ask_questions)
        samples = session.phase("generate", generate, questions)
        rows = session.phase("select", select, questions, samples)
        models = session.phase("sft", fine_tune, rows, questions)
        models = session.phase("rl", reinforce, models, questions)
        evaluations = session.phase("eval", evaluate, models, questions)
        return Outcome(session.phase("report", _report, models, evaluations), questions, evaluations)
    return None


def _report(session: Session, models: Mapping[Arm, Model], evaluations: Evaluations) -> Results:
    compared = {arm: models[arm] for arm in session.config.compared}
    sources = {arm.name: f"stages/{model.identity}/model" if model.made_here else model.source for arm, model in compared.items()}
    base = session.base
    facts = {"fingerprint": base.identity, "origin": origin_of(base.source, session.config.model.revision), **session.provenance}
    results = collect_results(session.config, evaluations.sampled, evaluations.greedy, evaluations.doses, session.stages, sources, facts)
    if is_primary():
        session.note_stages(stage.directory.name for stage in session.stages.values())
        _write(session, results, example_samples(evaluations.sampled, session.stages), gather(session.config, session.stages))
    if session.config.export:
        _export(session, results, {arm.name: model for arm, model in compared.items()})
    return results


def _write(session: Session, results: Results, samples: list[dict[str, Any]], evidence: Evidence) -> None:
    """The results of the session's configuration, for programs and for people, which the directory shows from now on."""
    directory = place(session.directory.path, session.configuration)
    results.write(directory)
    write_report(directory, results, samples)
    write_page(directory / "report.html", results, evidence)
    publish(session.directory.path, session.configuration)


def _export(session: Session, results: Results, models: Mapping[str, Model]) -> None:
    """The best arm as a Hugging Face directory with its card; of one that is there already, the card alone is written again."""
    arm = str(results.best)
    model, card = models[arm], run_card(results, arm)
    target, marker = session.directory.path / "export", session.directory.path / ".exported"
    if from_primary(target.exists() and marker.exists() and marker.read_text() == model.identity):
        if is_primary():
            write_whole(target / "README.md", card)
        return
    session.display.note(f"export: the {arm} arm to {target}")
    # In the dtypes that the base model came in, though training is in float32: half the size, and what who uses the base expects.
    # `jaxpolya export --dtype float32` gives the trained values themselves.
    checkpoint = session.load(model)
    export_checkpoint(target, checkpoint.params, checkpoint.meta, card=card)
    if is_primary():
        write_whole(marker, model.identity)
