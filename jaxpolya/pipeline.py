"""Arms → stages → artifacts.

A run is a few phases, each a set of stages; arms share every stage that they have in common:

    questions ─► generate ─► select ─► sft ─► rl ─► eval ─► report

A stage is a function of its configuration and its inputs (`artifacts`): whole ones are skipped, broken-off ones go on. The
model that a stage leaves is known by the name of the stage's directory, which holds the hash of all that led to it.
"""

import contextlib
import dataclasses
import difflib
import functools
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxpolya.artifacts import Clock, RunDirectory, Stage, digest, file_digest, provenance, write_whole
from jaxpolya.config import AnySource, RunConfig, Sampling
from jaxpolya.config_file import dump_config
from jaxpolya.data.questions import load_questions
from jaxpolya.decode.engine import Engine
from jaxpolya.errors import ConfigError, InputError, RunError
from jaxpolya.evaluate.composition import SEVERAL, HeuristicJudge, Markers, Solution
from jaxpolya.evaluate.contamination import Overlap, find_overlaps
from jaxpolya.evaluate.diversity import chosen
from jaxpolya.evaluate.model_judge import ModelJudge, check_room
from jaxpolya.evaluate.parquet import write_parquet
from jaxpolya.hf.checkpoint import Checkpoint, CheckpointMeta, export_checkpoint, inspect_checkpoint, load_checkpoint, save_checkpoint
from jaxpolya.hf.reward import inspect_reward_model, load_reward_model
from jaxpolya.hf.source import fingerprint
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.hosts import from_primary, wait_for_all
from jaxpolya.parallel.mesh import is_primary, make_mesh
from jaxpolya.polya.adherence import AdherenceScorer, Case, MutualInformation, Reward
from jaxpolya.polya.catalogue import Slot, load_catalogue, most_slots, slots
from jaxpolya.polya.prompts import KINDS, PromptBuilder
from jaxpolya.polya.respond import Asking, Prompt, make_prompts, respond
from jaxpolya.polya.select import (
    approach_rows,
    by_question,
    capped,
    external_rows,
    match_arms,
    needs_scores,
    require_rows,
    star_rows,
)
from jaxpolya.progress import Display
from jaxpolya.records import Question, Sample, SftRow, read_records, write_records
from jaxpolya.report.page import write_report
from jaxpolya.results import brief, collect_results, example_samples, write_results
from jaxpolya.stages import digest_or_none, row_stats, sample_stats, source_identity, stage_fields
from jaxpolya.train.objectives import Forward
from jaxpolya.train.rl import check_prompts, run_rl
from jaxpolya.train.sft import check_rows, run_sft, sft_batches, sft_examples, split_heldout
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.sandbox import machine_weakness

PHASES = ("questions", "generate", "select", "sft", "rl", "eval", "report")
BASE = "base"


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the run, loaded when it is needed."""

    identity: str
    """The base checkpoint's fingerprint, or the directory name of the stage that made it."""
    source: str
    made_here: bool = False
    """Whether a stage of this run left it."""


class Pipeline:
    """One run. `run()` does what is left of it."""

    def __init__(self, config: RunConfig, display: Display | None = None, *, only: str | None = None):
        """Checks everything that can be checked before a weight is loaded.

        Args:
          config: the run.
          display: where progress is shown.
          only: the one phase to do; those before it must be done.

        Raises:
          ConfigError, InputError: what was asked for can't be done, and why.
        """
        if only is not None and only not in PHASES:
            close = difflib.get_close_matches(only, PHASES, n=1)
            raise ConfigError(f"--only {only}: the phases are {', '.join(PHASES)}{f'; did you mean {close[0]}?' if close else ''}")
        if only in (absent := _absent_phases(config)):
            raise ConfigError(f"--only {only}: the arms {', '.join(config.arms)} have no {', '.join(absent)} phase")
        self.config, self.display, self._only = config, display or Display(), only
        self.run_directory = RunDirectory(config.output / config.name)
        self.mesh = make_mesh(config.mesh)
        self._check_rows()
        self._check_files()
        self.meta: CheckpointMeta = inspect_checkpoint(config.model.source, revision=config.model.revision)
        self._check_lengths()
        self.catalogue = load_catalogue(config.generate.catalogue if config.generate else None)
        self.builder = PromptBuilder(self.meta.tokenizer, chat=config.model.chat, system=config.model.system, frame=self.catalogue.frame)
        if config.eval.composition == "model":
            check_room(self.builder, self.catalogue.heuristics, self.meta.config.max_positions)
        self.slots = self._make_slots()
        self.dtype = jnp.dtype(config.model.compute_dtype)
        self.provenance = provenance(self.mesh.shape, f"{jax.device_count()} × {jax.devices()[0].device_kind}")
        self._loaded: tuple[str, Checkpoint] | None = None
        self._adherence: AdherenceScorer | None = None
        self._stages: dict[str, Stage] = {}

    # Phases ------------------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any] | None:
        """Does what is left; returns the results, or None where `only` names an earlier phase.

        Raises:
          JaxpolyaError: the run can't go on; what is done stays done.
        """
        with self.run_directory.lock() if is_primary() else contextlib.nullcontext(), self._pool() as pool:
            if is_primary():
                write_whole(self.run_directory.path / "config.yaml", dump_config(self.config))
            wait_for_all("start")
            base = Model(fingerprint(self.config.model.source, self.config.model.revision), self.config.model.source)
            steps: dict[str, Callable[[], None]] = {
                "questions": self._questions_phase,
                "generate": functools.partial(self._generate_phase, base, pool),
                "select": functools.partial(self._select_phase, base),
                "sft": functools.partial(self._sft_phase, base),
                "rl": functools.partial(self._rl_phase, pool),
                "eval": functools.partial(self._eval_phase, base, pool),
            }
            self.models: dict[str, Model] = {BASE: base}
            for phase, step in steps.items():
                self._phase = phase
                step()
                if phase == self._only:
                    return None
            return self._report()

    def _questions_phase(self) -> None:
        self.questions: dict[str, tuple[Stage, list[Question]]] = {}
        wanted: dict[str, Sequence[AnySource]] = {}
        if self.config.sft_arms and self.config.generate:
            wanted["train"] = self.config.generate.questions
        if self._rl_arms and self.config.rl:
            wanted["rl"] = self.config.rl.questions
        wanted |= {f"eval-{name}": sources for name, sources in self.config.eval.questions.items()}
        for use, sources in wanted.items():
            stage = self._stage(f"questions-{use}", {"sources": [source_identity(source) for source in sources]})

            def load(stage: Stage = stage, sources: Sequence[AnySource] = sources) -> dict[str, Any]:
                loaded = load_questions(sources)
                if is_primary():
                    write_records(stage.directory / "questions.jsonl", loaded.questions)
                return {"questions": len(loaded.questions), "dropped": loaded.dropped}

            self._do(stage, load)
            questions = read_records(stage.directory / "questions.jsonl", Question)
            self.questions[use] = stage, questions
        if "train" in self.questions and {"polya", "wrong"} & set(self.config.sft_arms):
            self._check_slots([KINDS[question.verifier] for question in self.questions["train"][1]], min)
        self._compare_with_evaluation()
        if any(question.verifier == "code" for _, questions in self.questions.values() for question in questions):
            weakness = machine_weakness()
            self.provenance["sandbox"] = weakness or "namespaces"
            if weakness:
                self.display.note(f"warning: {weakness}")
        self._ask_bare()

    def _compare_with_evaluation(self) -> None:
        """Finds the training questions that an evaluation set asks too, and leaves them out where that is asked for."""
        evaluated = {name: self.questions[f"eval-{name}"] for name in self.config.eval.questions}
        config = self.config.contamination
        for use in [use for use in ("train", "rl") if use in self.questions]:
            raw, questions = self.questions[use]
            sets = {name: stage.directory.name for name, (stage, _) in evaluated.items()}
            stage = self._stage(f"contamination-{use}", {"n": config.n, "questions": raw.directory.name, "sets": sets})
            file = stage.directory / "contamination.jsonl"

            def compare(questions: list[Question] = questions, file: Path = file) -> dict[str, Any]:
                found = find_overlaps(questions, {name: asked for name, (_, asked) in evaluated.items()}, config.n)
                if is_primary():
                    write_records(file, found)
                return {"questions": len(questions), "shared": len({overlap.train for overlap in found}), "pairs": len(found)}

            self._do(stage, compare)
            shared = {overlap.train for overlap in read_records(file, Overlap)}
            if config.drop and shared:
                self.questions[use] = self._leave_out(use, shared, raw, questions)

    def _leave_out(self, use: str, shared: set[str], raw: Stage, questions: Sequence[Question]) -> tuple[Stage, list[Question]]:
        """The training questions without the shared ones. Another evaluation set redoes a training only if it shares other questions."""
        kept = [question for question in questions if question.id not in shared]
        if not kept:
            raise RunError(f"contamination.drop leaves no question for {use}: the evaluation sets ask all {len(shared)} of them too")
        stage = self._stage(f"questions-{use}", {"questions": raw.directory.name, "left_out": sorted(shared)})

        def leave_out() -> dict[str, Any]:
            if is_primary():
                write_records(stage.directory / "questions.jsonl", kept)
            dropped = (raw.manifest or {})["stats"]["dropped"]
            return {"questions": len(kept), "dropped": {**dropped, "shared with an evaluation set": len(shared)}}

        self._do(stage, leave_out)
        return stage, kept

    def _ask_bare(self) -> None:
        """The prompts of RL and evaluation: what can't be asked is known before the stages ahead of them have worked for hours."""
        self.bare = {
            f"eval-{name}": self._prompts(_bare(self.questions[f"eval-{name}"][1]), self.config.eval.sampling, "eval")
            for name in self.config.eval.questions
        }
        if self._rl_arms and self.config.rl:
            config = self.config.rl
            prompts, too_long = self._prompts(_bare(self.questions["rl"][1]), config.sampling, "rl")
            prompts, over = _fitting(prompts, config.batching.row_tokens - config.sampling.max_new_tokens)
            check_prompts(prompts, config)
            self.bare["rl"] = prompts, too_long + over

    def _generate_phase(self, base: Model, pool: Pool) -> None:
        self.samples: dict[str, tuple[Stage, list[Sample]]] = {}
        config = self.config.generate
        if config is None:
            return
        questions_stage, questions = self.questions.get("train", (None, []))
        common = {"questions": questions_stage and questions_stage.directory.name, "seed": config.seed, **self._model_identity(base)}
        if "star" in self.config.sft_arms:
            stage = self._stage("generate-plain", {**common, "samples": config.plain_samples, "sampling": stage_fields(config.sampling)})
            self._generate(stage, "plain", _bare(questions), config.plain_samples, base, pool)
        if {"polya", "wrong"} & set(self.config.sft_arms):
            fields = ("samples", "sampling", "heuristics", "slots", "exemplars", "four_phases")
            offered = self.catalogue.model_copy(update={"heuristics": self.catalogue.pick(config.heuristics)})
            identity = {**common, **{name: stage_fields(config)[name] for name in fields}, "catalogue": offered.fingerprint}
            stage = self._stage("generate-polya", identity)
            # Slot by slot: prompts under one slot begin with the same exemplars, whose prefill they share.
            number = range(len(self.slots["math"]))
            pairs = [(question, self.slots[KINDS[question.verifier]][i]) for i in number for question in questions]
            self._generate(stage, "polya", pairs, config.samples, base, pool)

    def _generate(
        self, stage: Stage, arm: str, pairs: Sequence[tuple[Question, Slot | None]], samples: int, base: Model, pool: Pool
    ) -> None:
        config = self.config.generate
        assert config is not None
        file = stage.directory / "samples.jsonl"

        def generate() -> dict[str, Any]:
            prompts, too_long = self._prompts(pairs, config.sampling, "generate", four_phases=config.four_phases)
            drawn = self._respond(prompts, config.sampling, Asking(arm, "generate", samples, config.seed), base, pool, file, stage.name)
            return {**sample_stats(drawn), "prompts": len(prompts), "too_long": too_long}

        self._do(stage, generate)
        # Nothing after this asks for log-probs, which are half of the memory.
        self.samples[arm] = stage, [dataclasses.replace(sample, logprobs=[]) for sample in read_records(file, Sample)]

    def _select_phase(self, base: Model) -> None:
        self.rows: dict[str, Path] = {}
        kinds, config = self.config.sft_arms, self.config.select
        if not kinds:
            return
        identity = {
            "select": stage_fields(config),
            "kinds": kinds,
            "questions": self.questions["train"][0].directory.name,
            **self._model_identity(base),
            "samples": {arm: stage.directory.name for arm, (stage, _) in self.samples.items()},
            "external": config.external and file_digest(config.external) if "external" in kinds else None,
            "reward_model": fingerprint(config.reward_model) if config.adherence == "reward_model" and config.reward_model else None,
        }
        stage = self._stage("select", identity)

        def select() -> dict[str, Any]:
            questions = {question.id: question for question in self.questions["train"][1]}
            external = self._external(questions)
            grouped = {kind: self._candidates(kind) for kind in kinds if kind != "external"}
            ids = {kind: found.keys() for kind, found in grouped.items()} | (
                {"external": {row.question_id for row in external}} if external else {}
            )
            kept = capped(ids, config.max_questions, config.seed)
            rows = {
                kind: [row for row in external if kept is None or row.question_id in kept]
                if kind == "external"
                else self._select(kind, {i: found for i, found in grouped[kind].items() if kept is None or i in kept}, base, questions)
                for kind in kinds
            }
            require_rows(rows, {kind: self.samples["plain" if kind == "star" else "polya"][1] for kind in kinds if kind != "external"})
            if config.match != "none":
                rows = match_arms(rows, config.match, self._response_tokens, config.seed)
            if is_primary():
                for kind, found in rows.items():
                    write_records(stage.directory / f"{kind}.jsonl", found)
            return {kind: row_stats(found) for kind, found in rows.items()}

        self._do(stage, select)
        self._adherence = None
        self.rows = {kind: stage.directory / f"{kind}.jsonl" for kind in kinds}

    def _candidates(self, kind: str) -> dict[str, list[Sample]]:
        """The responses that may become rows of one kind of arm, per question."""
        return by_question(self.samples["plain" if kind == "star" else "polya"][1], "wrong" if kind == "wrong" else "correct")

    def _external(self, questions: Mapping[str, Question]) -> list[SftRow]:
        """The rows of the `external` arms, if they are asked for."""
        path = self.config.select.external
        if "external" not in self.config.sft_arms or path is None:
            return []
        return external_rows(path, list(questions.values()), lambda question_id: self.builder.text(questions[question_id]))

    def _select(self, kind: str, grouped: Mapping[str, Sequence[Sample]], base: Model, questions: Mapping[str, Question]) -> list[SftRow]:
        """The rows of one kind of arm, before matching."""
        config = self.config.select

        def bare_prompt(question_id: str) -> str:
            return self.builder.text(questions[question_id])

        if kind == "star":
            return star_rows(grouped, bare_prompt)
        undecided = [sample for samples in grouped.values() if needs_scores(samples, config.n) for sample in samples]
        slots_of = {question_id: {s.index: s for s in self.slots[KINDS[questions[question_id].verifier]]} for question_id in grouped}
        cases = [Case(questions[s.question_id], slots_of[s.question_id][s.slot or 0], s) for s in undecided]
        if cases:
            self.display.note(f"select: scoring the adherence of {len(cases)} responses of the {kind} arm")
        scores = dict(zip([sample.id for sample in undecided], self._scorer(base).score(cases).tolist(), strict=True)) if cases else {}
        return approach_rows(grouped, scores, bare_prompt, n=config.n, duplicate_overlap=config.duplicate_overlap, source=kind)

    def _scorer(self, base: Model) -> AdherenceScorer:
        """The adherence scorer, loaded once."""
        four_phases = bool(self.config.generate and self.config.generate.four_phases)
        if self._adherence is None and self.config.select.adherence == "reward_model":
            assert self.config.select.reward_model is not None
            model = load_reward_model(self.config.select.reward_model, self.mesh, self.dtype)
            self._adherence = Reward(model, self.builder, four_phases=four_phases)
        elif self._adherence is None:
            forward = Forward(self.meta.config, self.dtype)
            self._adherence = MutualInformation(self._load(base).params, forward, self.mesh, self.builder, four_phases=four_phases)
        return self._adherence

    def _sft_phase(self, base: Model) -> None:
        config = self.config.sft
        for kind in self.config.sft_arms:
            assert config is not None
            identity = {"sft": stage_fields(config), "rows": digest_or_none(self.rows[kind]), **self._model_identity(base)}
            stage = self._stage(f"sft-{kind}", identity)

            def train(stage: Stage = stage, kind: str = kind) -> dict[str, Any]:
                rows, heldout_rows = split_heldout(read_records(self.rows[kind], SftRow), config.heldout, config.seed)
                stop = self._stop_id()
                make = functools.partial(sft_examples, tokenizer=self.meta.tokenizer, encode=self.builder.encode, stop_id=stop)
                examples, too_long = make(rows, longest=config.batching.row_tokens)
                heldout, _ = make(heldout_rows, longest=config.batching.row_tokens)
                with self.display.task(stage.name, sft_batches(config, examples).steps) as task:
                    result = run_sft(
                        config, self.meta.config, lambda: self._take(base), self.mesh, examples, heldout,
                        dtype=self.dtype, directory=stage.directory, task=task,
                    )  # fmt: skip
                save_checkpoint(stage.directory / "model", result.params, self.meta)
                return {**result.stats, "too_long": too_long}

            self._do(stage, train)
            self.models[kind] = Model(stage.directory.name, str(stage.directory / "model"), made_here=True)

    def _rl_phase(self, pool: Pool) -> None:
        config = self.config.rl
        for arm in self._rl_arms:
            assert config is not None
            start = self.models[BASE if arm == "rl" else arm.removesuffix("+rl")]
            questions_stage, _ = self.questions["rl"]
            identity = {"rl": stage_fields(config), "questions": questions_stage.directory.name, **self._model_identity(start)}
            stage = self._stage(f"rl-{arm.replace('+', '-')}", identity)

            def train(stage: Stage = stage, arm: str = arm, start: Model = start) -> dict[str, Any]:
                prompts, too_long = self.bare["rl"]
                with self.display.task(stage.name, config.steps * config.prompts * config.group) as task:
                    result = run_rl(
                        config, self.meta.config, lambda: self._take(start), self.mesh, prompts,
                        self._engine(prompts, config.sampling, config.group, at_a_time=config.prompts), pool,
                        arm=arm, dtype=self.dtype, directory=stage.directory, task=task,
                    )  # fmt: skip
                save_checkpoint(stage.directory / "model", result.params, self.meta)
                tokens = sum(step["length"] for step in result.steps) * config.prompts * config.group
                return {"steps": config.steps, "tokens": round(tokens), "too_long": too_long}

            self._do(stage, train)
            self.models[arm] = Model(stage.directory.name, str(stage.directory / "model"), made_here=True)

    def _eval_phase(self, base: Model, pool: Pool) -> None:
        config = self.config.eval
        once = config.sampling.model_copy(update={"temperature": 0.0, "top_k": 0, "top_p": 1.0})
        self.evaluations: dict[str, dict[str, Stage]] = {}
        self.greedy: dict[str, dict[str, Stage]] = {}
        for arm in self.config.arms:
            for name in config.questions:
                asked = self._evaluate("eval", arm, name, config.sampling, config.samples, pool)
                self.evaluations.setdefault(arm, {})[name] = asked
                if config.greedy:
                    self.greedy.setdefault(arm, {})[name] = self._evaluate("greedy", arm, name, once, 1, pool)
        self._label_solutions(base)

    def _evaluate(self, use: str, arm: str, name: str, sampling: Sampling, samples: int, pool: Pool) -> Stage:
        """The stage of one arm's answers to one question set."""
        seed, model = self.config.eval.seed, self.models[arm]
        fields = {"sampling": stage_fields(sampling), "samples": samples, "seed": seed}
        questions_stage, questions = self.questions[f"eval-{name}"]
        identity = {**fields, "questions": questions_stage.directory.name, **self._model_identity(model)}
        stage = self._stage(f"{use}-{arm.replace('+', '-')}-{name}", identity)

        def evaluate() -> dict[str, Any]:
            prompts, too_long = self.bare[f"eval-{name}"]
            file = stage.directory / "samples.jsonl"
            drawn = self._respond(prompts, sampling, Asking(arm, use, samples, seed), model, pool, file, stage.name)
            if is_primary():
                write_parquet(stage.directory / "samples.parquet", drawn, {question.id: question for question in questions})
            return {**sample_stats(drawn), "too_long": too_long}

        self._do(stage, evaluate)
        return stage

    def _label_solutions(self, base: Model) -> None:
        """Has a judge say which heuristics the evaluated solutions use."""
        judged_by = self.config.eval.composition
        if judged_by == "none":
            return
        reach = (Markers if judged_by == "markers" else ModelJudge).reach
        known_by = [[h.key, h.title, h.instruction, h.markers] for h in self.catalogue.heuristics]
        identity = {"judge": judged_by, "reach": list(reach), "heuristics": digest(known_by)}
        if judged_by == "model":
            identity |= self._model_identity(base)
        for arm, sets in self.evaluations.items():
            for name, evaluated in sets.items():
                stage = self._stage(f"labels-{arm.replace('+', '-')}-{name}", {**identity, "samples": evaluated.directory.name})

                def label(stage: Stage = stage, evaluated: Stage = evaluated, name: str = name) -> dict[str, Any]:
                    questions = {question.id: question for question in self.questions[f"eval-{name}"][1]}
                    samples = chosen(read_records(evaluated.directory / "samples.jsonl", Sample), self.config.eval.seed, *reach)
                    found = self._judge(base).label([Solution(questions[sample.question_id], sample.response) for sample in samples])
                    if is_primary():
                        rows = ({"sample_id": sample.id, "labels": labels} for sample, labels in zip(samples, found, strict=True))
                        write_records(stage.directory / "labels.jsonl", rows)
                    return {"solutions": len(samples), "composed": sum(len(labels) >= SEVERAL for labels in found)}

                self._do(stage, label)

    def _judge(self, base: Model) -> HeuristicJudge:
        if self.config.eval.composition == "markers":
            return Markers(self.catalogue.heuristics)
        forward = Forward(self.meta.config, self.dtype)
        return ModelJudge(self._load(base).params, forward, self.mesh, self.builder, self.catalogue.heuristics)

    def _report(self) -> dict[str, Any]:
        self._phase = "report"
        models = {arm: self.models[arm] for arm in self.config.arms}
        sources = {arm: f"stages/{model.identity}/model" if model.made_here else model.source for arm, model in models.items()}
        results = collect_results(self.config, self.evaluations, self.greedy, self._stages, sources, self.provenance)
        if is_primary():
            write_results(self.run_directory.path, results)
            write_report(self.run_directory.path, results, example_samples(self.evaluations, self._stages))
        if self.config.export:
            arm = results["best"]
            dtype = "float32" if self.config.model.compute_dtype == "float32" else "bfloat16"
            target = self.run_directory.path / "export"
            marker = self.run_directory.path / ".exported"
            name = f"{self.models[arm].identity} {dtype}"
            if not from_primary(target.exists() and marker.exists() and marker.read_text() == name):
                self.display.note(f"export: the {arm} arm to {target}")
                export_checkpoint(target, self._load(self.models[arm]).params, self.meta, dtype=dtype)  # type: ignore[arg-type]
                if is_primary():
                    write_whole(marker, name)
        return results

    # Pieces ------------------------------------------------------------------------------------------------------------

    @property
    def _rl_arms(self) -> list[str]:
        return [arm for arm in self.config.arms if arm == "rl" or arm.endswith("+rl")]

    def _count_stages(self) -> int:
        """Stages of the whole run."""
        kinds, sets = set(self.config.sft_arms), len(self.config.eval.questions)
        labelled = self.config.eval.composition != "none"
        evaluations = len(self.config.arms) * sets * (1 + self.config.eval.greedy + labelled)
        generated = bool(kinds) and self.config.generate is not None
        generate = ("star" in kinds) + bool({"polya", "wrong"} & kinds) if generated else 0
        questions = 2 * generated + 2 * bool(self._rl_arms) + sets  # those to learn from are compared with the others
        return questions + generate + bool(kinds) + len(kinds) + len(self._rl_arms) + evaluations

    def _stage(self, name: str, identity: Mapping[str, Any]) -> Stage:
        self._stages[name] = self.run_directory.stage(name, identity)
        return self._stages[name]

    def _do(self, stage: Stage, work: Callable[[], Mapping[str, Any]]) -> None:
        """Does a stage unless it is whole, and clears away what only a broken-off one needs."""
        if not from_primary(stage.manifest is not None):
            if self._only and self._phase not in (self._only, "questions"):
                raise RunError(
                    f"--only {self._only}: {stage.name} comes before it and is not done yet; leave --only away, or do that first"
                )
            clock = Clock()
            if is_primary():
                stage.start(self.provenance)
            wait_for_all(stage.name)
            try:
                stats = work()
            finally:
                if is_primary():
                    stage.note_seconds(clock.seconds)
            wait_for_all(f"{stage.name} done")
            if is_primary():
                manifest = stage.finish(stats=stats, provenance=self.provenance)
                done, planned = len(self._stages), self._count_stages()
                self.display.note(f"[{done}/{planned}] {stage.name}: done in {manifest['seconds']:.1f} s; {brief(stats)}")
            wait_for_all(f"{stage.name} whole")
        elif trouble := from_primary(stage.changed_file() if is_primary() else None):
            raise InputError(trouble)
        if is_primary():
            shutil.rmtree(stage.directory / "checkpoints", ignore_errors=True)

    def _pool(self) -> Pool:
        verify = self.config.verify
        return Pool(verify.workers, verify.deadline, verify.memory_mb)

    def _load(self, model: Model) -> Checkpoint:
        """A model's parameters; the last one loaded is kept."""
        if self._loaded is None or self._loaded[0] != model.identity:
            self._loaded = None  # frees the one before first
            revision = None if model.made_here else self.config.model.revision
            try:
                self._loaded = model.identity, load_checkpoint(model.source, mesh=self.mesh, revision=revision)
            except InputError as error:
                if not model.made_here:
                    raise
                raise InputError(
                    f"{error}\n  A stage of this run made that model; delete {Path(model.source).parent} to do it again"
                ) from None
        return self._loaded[1]

    def _take(self, model: Model) -> Params:
        """A model's parameters, for a caller who consumes them: no second copy is kept."""
        params = self._load(model).params
        self._loaded = None
        return params

    def _model_identity(self, model: Model) -> dict[str, Any]:
        fields = ("compute_dtype", "chat", "system")
        return {"model": model.identity, **{name: getattr(self.config.model, name) for name in fields}}

    def _make_slots(self) -> dict[str, list[Slot]]:
        """Slots for each kind of question."""
        config = self.config.generate
        if config is None:
            return {}
        heuristics = self.catalogue.pick(config.heuristics)
        self._check_slots(KINDS.values(), max)  # what no kind of question has is known before there are questions
        made: dict[str, list[Slot]] = {
            kind: slots(heuristics, config.slots, config.exemplars, config.seed, kind)  # type: ignore[arg-type]
            for kind in sorted(set(KINDS.values()))
        }
        count = len(made["math"])
        if "polya" in self.config.sft_arms and self.config.select.n > count:
            raise ConfigError(
                f"select.n ({self.config.select.n}) is larger than the approaches drawn per question ({count} slots, one kept of each): "
                "raise generate.slots or lower select.n"
            )
        return made

    def _check_slots(self, kinds: Iterable[str], choose: Callable[[Iterable[int]], int]) -> None:
        """Raises `ConfigError` where slots would be copies of each other: for all kinds of questions (max), or for one of them (min)."""
        config = self.config.generate
        if config is None or config.slots is None:
            return
        heuristics = self.catalogue.pick(config.heuristics)
        most = choose(most_slots(heuristics, config.exemplars, kind) for kind in set(kinds))  # type: ignore[arg-type]
        if config.slots > most:
            raise ConfigError(
                f"generate.slots ({config.slots}): no two may be alike; the heuristics, with {config.exemplars} exemplars each, make only "
                f"{most} for these questions; lower it, or add heuristics or exemplars"
            )

    def _check_lengths(self) -> None:
        """Raises where a response leaves no room for its prompt."""
        positions = self.meta.config.max_positions
        for key, stage in (("generate", self.config.generate), ("rl", self.config.rl), ("eval", self.config.eval)):
            if stage is not None and stage.sampling.max_new_tokens >= positions:
                raise ConfigError(
                    f"{key}.sampling.max_new_tokens ({stage.sampling.max_new_tokens}) leaves no room for a prompt: "
                    f"the model has {positions} positions; lower it"
                )

    def _check_files(self) -> None:
        """Raises where an input of a later stage is missing."""
        select = self.config.select
        if "external" in self.config.sft_arms and select.external and not select.external.is_file():
            raise InputError(f"select.external: {select.external} is not a file; name JSON lines of {{question_id or question, response}}")
        if self.config.sft_arms and select.adherence == "reward_model" and select.reward_model:
            inspect_reward_model(select.reward_model)

    def _check_rows(self) -> None:
        for key, stage, used in (("sft", self.config.sft, self.config.sft_arms), ("rl", self.config.rl, self._rl_arms)):
            if stage is not None and used:
                check_rows(stage.batching.micro_rows, self.mesh, f"{key}.batching.micro_rows")

    def _prompts(
        self, pairs: Sequence[tuple[Question, Slot | None]], sampling: Sampling, key: str, *, four_phases: bool = False
    ) -> tuple[list[Prompt], int]:
        room = self.meta.config.max_positions - sampling.max_new_tokens
        return make_prompts(self.builder, pairs, longest=min(sampling.max_prompt_tokens or room, room), key=key, four_phases=four_phases)

    def _engine(self, prompts: Sequence[Prompt], sampling: Sampling, samples: int, *, at_a_time: int | None = None) -> Engine:
        return Engine(
            self.meta.config,
            self.mesh,
            sampling=sampling.model_copy(update={"stop": [*sampling.stop, *self.builder.stops]}),
            prompts=at_a_time or len(prompts),
            samples=samples,
            longest_prompt=max(len(prompt.ids) for prompt in prompts),
            stop_ids=self.meta.stop_ids,
            decode=lambda ids: str(self.meta.tokenizer.decode(ids, skip_special_tokens=True)),
            engine=self.config.decode,
            dtype=self.dtype,
        )

    def _respond(
        self, prompts: Sequence[Prompt], sampling: Sampling, asking: Asking, model: Model, pool: Pool, file: Path, title: str
    ) -> list[Sample]:
        engine = self._engine(prompts, sampling, asking.samples)
        with self.display.task(title, len(prompts) * asking.samples) as task:
            drawn = respond(engine, lambda: self._load(model).params, prompts, asking, pool=pool, out=file, task=task)
        if is_primary():
            write_records(file, drawn)  # verdicts came in any order, and what follows (the first correct one, resamples) goes by this one
        return drawn

    def _stop_id(self) -> int:
        if not self.meta.stop_ids:
            raise InputError(
                f"{self.meta.source}: names no end-of-text token, so responses can't be taught to end; add eos_token_id to its config"
            )
        eos = self.meta.tokenizer.eos_token_id
        return eos if eos in self.meta.stop_ids else self.meta.stop_ids[0]

    def _response_tokens(self, row: SftRow) -> int:
        return len(self.meta.tokenizer.encode(row.response, add_special_tokens=False)) + 1


def _absent_phases(config: RunConfig) -> list[str]:
    """The phases in which the run's arms have nothing to do."""
    kinds = set(config.sft_arms)
    needed = {"generate": kinds - {"external"}, "select": kinds, "sft": kinds, "rl": any(arm.split("+")[-1] == "rl" for arm in config.arms)}
    return [phase for phase, arms in needed.items() if not arms]


def _bare(questions: Sequence[Question]) -> list[tuple[Question, Slot | None]]:
    """Questions that are asked without a heuristic."""
    return [(question, None) for question in questions]


def _fitting(prompts: Sequence[Prompt], longest: int) -> tuple[list[Prompt], int]:
    """Prompts whose whole rollout fits a packed row. Raises `ConfigError` if none does."""
    kept = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    if not kept:
        raise ConfigError(
            f"rl.batching.row_tokens leaves {longest} tokens beside rl.sampling.max_new_tokens, too few for any prompt (the shortest has "
            f"{min(len(prompt.ids) for prompt in prompts)}); raise it"
        )
    return kept, len(prompts) - len(kept)
