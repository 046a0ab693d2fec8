"""Arms → stages → artifacts.

A run is a few phases, each a set of stages; arms share every stage that they have in common:

    questions ─► generate ─► select ─► sft ─► rl ─► eval ─► report

A stage is a function of its configuration and its inputs (`artifacts`): whole ones are skipped, broken-off ones go on. The
model that a stage leaves is known by the name of the stage's directory, which holds the hash of all that led to it.
"""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxpolya.artifacts import FORMAT, FORMAT_LINE, Stage, digest, file_digest, write_whole
from jaxpolya.config import AnySource, Sampling
from jaxpolya.config_file import dump_config
from jaxpolya.data.questions import load_questions
from jaxpolya.errors import ConfigError, RunError
from jaxpolya.evaluate.audit import Tally, audit_samples, audit_steps
from jaxpolya.evaluate.composition import SEVERAL, HeuristicJudge, Markers, Solution
from jaxpolya.evaluate.contamination import Overlap, find_overlaps
from jaxpolya.evaluate.diversity import chosen
from jaxpolya.evaluate.model_judge import ModelJudge
from jaxpolya.evaluate.parquet import write_parquet
from jaxpolya.hf.checkpoint import export_checkpoint, save_checkpoint
from jaxpolya.hf.origin import origin_of
from jaxpolya.hf.reward import load_reward_model
from jaxpolya.hf.source import fingerprint
from jaxpolya.parallel.hosts import from_primary, wait_for_all
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.polya.adherence import AdherenceScorer, Case, MutualInformation, Reward
from jaxpolya.polya.catalogue import Slot
from jaxpolya.polya.lessons import Lessons
from jaxpolya.polya.prompts import KINDS
from jaxpolya.polya.respond import Asking, Prompt
from jaxpolya.polya.select import (
    approach_rows,
    by_question,
    capped,
    match_arms,
    needs_scores,
    require_rows,
    star_rows,
)
from jaxpolya.polya.traces import ELSEWHERE, TOO_LONG, Trace, judge_traces, read_traces, require_traces
from jaxpolya.records import Question, Sample, SftRow, read_records, write_records
from jaxpolya.report.card import run_card
from jaxpolya.report.page import write_report
from jaxpolya.results import collect_results, example_samples, write_results
from jaxpolya.stages import digest_or_none, meaning, row_stats, sample_stats, samples_digest, source_identity, stage_fields
from jaxpolya.train.algorithms import rl_fields
from jaxpolya.train.objectives import Forward
from jaxpolya.train.rl import check_prompts, rollout_file, run_rl
from jaxpolya.train.sft import run_sft, sft_batches, sft_examples, split_heldout
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.sandbox import machine_weakness
from jaxpolya.workbench import BASE, Model, Workbench


class Pipeline(Workbench):
    """One run. `run()` does what is left of it."""

    def run(self) -> dict[str, Any] | None:
        """Does what is left; returns the results, or None where `only` names an earlier phase.

        Raises:
          JaxpolyaError: the run can't go on; what is done stays done.
        """
        self._check_format()
        with self.run_directory.lock() if is_primary() else contextlib.nullcontext(), self._pool() as pool:
            if is_primary():
                write_whole(self.run_directory.path / "config.yaml", f"{FORMAT_LINE}{FORMAT}\n{dump_config(self.config)}")
            wait_for_all("start")
            base = Model(fingerprint(self.config.model.source, self.config.model.revision), self.config.model.source)
            steps: dict[str, Callable[[], None]] = {
                "questions": functools.partial(self._questions_phase, base, pool),
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

    def _check_format(self) -> None:
        if (found := self.run_directory.check_format()) is not None and found < FORMAT:
            self.display.note(
                f"{self.run_directory.path} was begun by an earlier version of jaxpolya, whose stages are known by less than their results "
                "rest on: they are left where they are, and done anew"
            )

    def _questions_phase(self, base: Model, pool: Pool) -> None:
        self.questions: dict[str, tuple[Stage, list[Question]]] = {}
        wanted: dict[str, Sequence[AnySource]] = {}
        if self.config.sft_arms and self.config.generate:
            wanted["train"] = self.config.generate.questions
        if self.config.rl_arms and self.config.rl:
            wanted["rl"] = self.config.rl.questions
        wanted |= {f"eval-{name}": sources for name, sources in self.config.eval.questions.items()}
        for use, sources in wanted.items():
            stage = self._stage(f"questions-{use}", {"sources": [source_identity(source) for source in sources], **meaning("questions")})

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
            weakness = machine_weakness(self.config.verify.code.modules)
            self.provenance["sandbox"] = weakness or "namespaces"
            if weakness:
                self.display.note(f"warning: {weakness}")
        self._ask_bare()
        self._judge_traces(base, pool)

    def _compare_with_evaluation(self) -> None:
        """Finds the training questions that an evaluation set asks too, and leaves them out where that is asked for."""
        evaluated = {name: self.questions[f"eval-{name}"] for name in self.config.eval.questions}
        config = self.config.contamination
        for use in [use for use in ("train", "rl") if use in self.questions]:
            raw, questions = self.questions[use]
            sets = {name: stage.directory.name for name, (stage, _) in evaluated.items()}
            identity = {**stage_fields(config, without=("drop",)), "questions": raw.directory.name, "sets": sets}
            stage = self._stage(f"contamination-{use}", {**identity, **meaning("contamination")})
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
        if self.config.rl_arms and self.config.rl:
            config = self.config.rl
            prompts, too_long = self._prompts(_bare(self.questions["rl"][1]), config.sampling, "rl")
            prompts, over = _fitting(prompts, config.batching.row_tokens - config.sampling.max_new_tokens)
            check_prompts(prompts, config)
            self.bare["rl"] = prompts, too_long + over

    def _judge_traces(self, base: Model, pool: Pool) -> None:
        """Looks through the traces of the external arms before anything is generated for them to be compared with."""
        self.traces: list[Trace] = []
        path, keep = self.config.select.external, self.config.select.external_verdicts
        if "external" not in self.config.sft_arms or path is None:
            return
        questions_stage, questions = self.questions["train"]
        identity = {"traces": file_digest(path), "questions": questions_stage.directory.name, **self._policy, **self._model_identity(base)}
        stage = self._stage("traces", identity)
        file = stage.directory / "traces.jsonl"

        def judge() -> dict[str, Any]:
            found, elsewhere = read_traces(path, questions)
            known = read_records(file, Trace) if file.exists() else []
            lesson = Lessons(self.meta.tokenizer, self.builder, self.meta.stop_ids).trace_row
            judged, too_long = judge_traces(path, found, known, questions, lesson, self.meta.config.context, pool)
            if is_primary():
                write_records(file, judged)
            dropped = {ELSEWHERE: elsewhere, TOO_LONG: too_long}
            verdicts = dict(collections.Counter(str(trace.verdict) for trace in judged).most_common())
            counts = {"traces": len(judged), "verdicts": verdicts, "dropped": {why: number for why, number in dropped.items() if number}}
            asked, said = {question.id: question for question in questions}, [trace.as_sample() for trace in judged]
            return {**counts, **self._audited(lambda: audit_samples(said, asked, pool, stage.name))}

        self._do(stage, judge, judged=(file, Trace))
        judged = read_records(file, Trace)
        self.traces = [trace for trace in judged if keep == "all" or trace.verdict == "correct"]
        require_traces(path, self.traces, judged)

    def _generate_phase(self, base: Model, pool: Pool) -> None:
        self.samples: dict[str, tuple[Stage, list[Sample]]] = {}
        config = self.config.generate
        if config is None:
            return
        questions_stage, questions = self.questions.get("train", (None, []))
        common = {"questions": questions_stage and questions_stage.directory.name, **self._policy, **self._model_identity(base)}
        if "star" in self.config.sft_arms:
            other = ("samples", "heuristics", "slots", "exemplars", "four_phases")
            stage = self._stage("generate-plain", {"generate": stage_fields(config, without=other), **common})
            self._generate(stage, "plain", _bare(questions), config.plain_samples, base, pool)
        if {"polya", "wrong"} & set(self.config.sft_arms):
            offered = self.catalogue.model_copy(update={"heuristics": self.catalogue.pick(config.heuristics)})
            identity = {"generate": stage_fields(config, without=("plain_samples",)), "catalogue": offered.fingerprint}
            stage = self._stage("generate-polya", {**identity, **common})
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
            asked = {question.id: question for question, _ in pairs}
            audit = self._audited(lambda: audit_samples(drawn, asked, pool, stage.name, greedy=not config.sampling.temperature))
            return {**sample_stats(drawn), "prompts": len(prompts), "too_long": too_long, **audit}

        self._do(stage, generate, judged=(file, Sample))
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
            "samples": {arm: samples_digest(samples) for arm, (_, samples) in self.samples.items()},
            # What adherence asks with.
            "asked": {"four_phases": self.config.generate and self.config.generate.four_phases, "catalogue": self.catalogue.fingerprint},
            "external": digest([[trace.question_id, trace.response] for trace in self.traces]),
            "reward_model": fingerprint(config.reward_model) if config.adherence == "reward_model" and config.reward_model else None,
        }
        stage = self._stage("select", {**identity, **meaning("prompts", "selection")})

        def select() -> dict[str, Any]:
            questions = {question.id: question for question in self.questions["train"][1]}
            lessons = Lessons(self.meta.tokenizer, self.builder, self.meta.stop_ids)
            external = [lessons.trace_row(questions[trace.question_id], trace.response) for trace in self.traces]
            grouped = {kind: self._candidates(kind) for kind in kinds if kind != "external"}
            ids = {kind: found.keys() for kind, found in grouped.items()} | (
                {"external": {row.question_id for row in external}} if external else {}
            )
            kept = capped(ids, config.max_questions, config.seed)
            rows = {}
            for kind in kinds:
                if kind == "external":
                    rows[kind] = [row for row in external if kept is None or row.question_id in kept]
                else:
                    candidates = {i: found for i, found in grouped[kind].items() if kept is None or i in kept}
                    rows[kind] = self._select(kind, candidates, lessons, base, questions)
            require_rows(rows, {kind: self.samples["plain" if kind == "star" else "polya"][1] for kind in kinds if kind != "external"})
            if config.match != "none":
                rows = match_arms(rows, config.match, lambda row: len(row.token_ids or ()), config.seed)
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

    def _select(
        self, kind: str, grouped: Mapping[str, Sequence[Sample]], lessons: Lessons, base: Model, questions: Mapping[str, Question]
    ) -> list[SftRow]:
        """The rows of one kind of arm, before matching."""
        config = self.config.select

        def row(sample: Sample, adherence: float | None) -> SftRow:
            return lessons.sample_row(questions[sample.question_id], sample, adherence=adherence, source=kind)

        if kind == "star":
            return star_rows(grouped, row)
        undecided = [sample for samples in grouped.values() if needs_scores(samples, config.n) for sample in samples]
        slots_of = {question_id: {s.index: s for s in self.slots[KINDS[questions[question_id].verifier]]} for question_id in grouped}
        cases = [Case(questions[s.question_id], slots_of[s.question_id][s.slot or 0], s) for s in undecided]
        if cases:
            self.display.note(f"select: scoring the adherence of {len(cases)} responses of the {kind} arm")
        scores = dict(zip([sample.id for sample in undecided], self._scorer(base).score(cases).tolist(), strict=True)) if cases else {}
        return approach_rows(grouped, scores, row, n=config.n, duplicate_overlap=config.duplicate_overlap)

    def _scorer(self, base: Model) -> AdherenceScorer:
        """The adherence scorer, loaded once."""
        four_phases = bool(self.config.generate and self.config.generate.four_phases)
        if self._adherence is None and self.config.select.adherence == "reward_model":
            assert self.config.select.reward_model is not None
            model = load_reward_model(self.config.select.reward_model, self.mesh, self.dtype)
            self._adherence = Reward(model, self.builder, four_phases=four_phases)
        elif self._adherence is None:
            forward = Forward(self.meta.config, self.dtype)
            self._adherence = MutualInformation(
                self._load(base).params, forward, self.mesh, self.builder, four_phases=four_phases, model=base.source
            )
        return self._adherence

    def _sft_phase(self, base: Model) -> None:
        config = self.config.sft
        for kind in self.config.sft_arms:
            assert config is not None
            identity = {"sft": stage_fields(config), "rows": digest_or_none(self.rows[kind]), **self._model_identity(base)}
            stage = self._stage(f"sft-{kind}", {**identity, **meaning("prompts", "training")})

            def train(stage: Stage = stage, kind: str = kind) -> dict[str, Any]:
                rows, heldout_rows = split_heldout(read_records(self.rows[kind], SftRow), config.heldout, config.seed)
                longest = min(config.batching.row_tokens, self.meta.config.context)
                examples, too_long = sft_examples(rows, longest)
                heldout, _ = sft_examples(heldout_rows, longest)
                with self.display.task(stage.name, sft_batches(config, examples).steps) as task:
                    result = run_sft(
                        config, self.meta.config, lambda: self._take(base), self.mesh, examples, heldout,
                        dtype=self.dtype, directory=stage.directory, task=task, model=base.source,
                    )  # fmt: skip
                save_checkpoint(stage.directory / "model", result.params, self.meta)
                return {**result.stats, "too_long": too_long}

            self._do(stage, train)
            self.models[kind] = Model(stage.directory.name, str(stage.directory / "model"), made_here=True)

    def _rl_phase(self, pool: Pool) -> None:
        config = self.config.rl
        for arm in self.config.rl_arms:
            assert config is not None
            start = self.models[BASE if arm == "rl" else arm.removesuffix("+rl")]
            questions_stage, _ = self.questions["rl"]
            asked = {"questions": questions_stage.directory.name, **self._policy}
            identity = {"rl": rl_fields(config), **asked, **self._model_identity(start)}
            stage = self._stage(f"rl-{arm.replace('+', '-')}", {**identity, **meaning("training")})

            def train(stage: Stage = stage, arm: str = arm, start: Model = start) -> dict[str, Any]:
                prompts, too_long = self.bare["rl"]
                name = f"{start.source}, as the arm {arm} trained it"
                with self.display.task(stage.name, config.steps * config.prompts * config.group) as task:
                    result = run_rl(
                        config, self.meta.config, lambda: self._take(start), self.mesh, prompts,
                        self._engine(prompts, config.sampling, config.group, name, at_a_time=config.prompts), pool,
                        arm=arm, dtype=self.dtype, directory=stage.directory, task=task, note=self.display.note,
                    )  # fmt: skip
                save_checkpoint(stage.directory / "model", result.params, self.meta)
                tokens = sum(step["length"] * (1 + step.get("refills", 0)) for step in result.steps) * config.prompts * config.group
                audit = self._audited(lambda: self._audit_rl(stage, result.steps, pool))
                return {"steps": config.steps, "tokens": round(tokens), "too_long": too_long, **audit}

            self._do(stage, train)
            self.models[arm] = Model(stage.directory.name, str(stage.directory / "model"), made_here=True)

    def _audit_rl(self, stage: Stage, steps: Sequence[Mapping[str, Any]], pool: Pool) -> dict[str, Any]:
        """The audit of an RL stage, from the counts in its log. Steps of a version that didn't count are left out."""
        counted = [step for step in steps if "audit" in step]

        def samples_of(place: int) -> list[Sample]:
            step = counted[place]
            files = [rollout_file(stage.directory, step["step"], attempt) for attempt in range(1 + step.get("refills", 0))]
            return [sample for file in files for sample in read_records(file, Sample)]

        tallies = [Tally.from_json(step["audit"]) for step in counted]
        return audit_steps(tallies, samples_of, {question.id: question for question in self.questions["rl"][1]}, pool, stage.name)

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
        asked = self.config.eval.model_copy(update={"sampling": sampling, "samples": samples})
        questions_stage, questions = self.questions[f"eval-{name}"]
        identity = {"eval": stage_fields(asked, without=("greedy", "composition")), "questions": questions_stage.directory.name}
        identity |= {**self._policy, **self._model_identity(model)}
        stage = self._stage(f"{use}-{arm.replace('+', '-')}-{name}", identity)

        file = stage.directory / "samples.jsonl"

        def evaluate() -> dict[str, Any]:
            prompts, too_long = self.bare[f"eval-{name}"]
            asked = {question.id: question for question in questions}
            drawn = self._respond(prompts, sampling, Asking(arm, use, samples, seed), model, pool, file, stage.name)
            if is_primary():
                write_parquet(stage.directory / "samples.parquet", drawn, asked)
            audit = self._audited(lambda: audit_samples(drawn, asked, pool, stage.name, greedy=not sampling.temperature))
            return {**sample_stats(drawn), "too_long": too_long, **audit}

        self._do(stage, evaluate, judged=(file, Sample))
        return stage

    def _label_solutions(self, base: Model) -> None:
        """Has a judge say which heuristics the evaluated solutions use."""
        judged_by = self.config.eval.composition
        if judged_by == "none":
            return
        reach = (Markers if judged_by == "markers" else ModelJudge).reach
        known_by = [[h.key, h.title, h.instruction, h.markers] for h in self.catalogue.heuristics]
        identity = {"judge": judged_by, "reach": list(reach), "heuristics": digest(known_by), **meaning("composition")}
        if judged_by == "model":
            identity |= self._model_identity(base)
        for arm, sets in self.evaluations.items():
            for name, evaluated in sets.items():
                said = samples_digest(read_records(evaluated.directory / "samples.jsonl", Sample), verdicts=False)
                stage = self._stage(f"labels-{arm.replace('+', '-')}-{name}", {**identity, "samples": said})

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
        return ModelJudge(self._load(base).params, forward, self.mesh, self.builder, self.catalogue.heuristics, model=base.source)

    def _report(self) -> dict[str, Any]:
        self._phase = "report"
        models = {arm: self.models[arm] for arm in self.config.arms}
        sources = {arm: f"stages/{model.identity}/model" if model.made_here else model.source for arm, model in models.items()}
        base = self.models[BASE]
        facts = {"fingerprint": base.identity, "origin": origin_of(base.source, self.config.model.revision), **self.provenance}
        results = collect_results(self.config, self.evaluations, self.greedy, self._stages, sources, facts)
        if is_primary():
            write_results(self.run_directory.path, results)
            write_report(self.run_directory.path, results, example_samples(self.evaluations, self._stages))
        if self.config.export:
            self._export(results)
        return results

    def _export(self, results: Mapping[str, Any]) -> None:
        """The best arm as a Hugging Face directory with its card; of one that is there already, the card alone is written again."""
        arm = results["best"]
        model, card = self.models[arm], run_card(results, arm)
        target = self.run_directory.path / "export"
        marker = self.run_directory.path / ".exported"
        if from_primary(target.exists() and marker.exists() and marker.read_text() == model.identity):
            if is_primary():
                write_whole(target / "README.md", card)
            return
        self.display.note(f"export: the {arm} arm to {target}")
        # In the dtypes that the base model came in, though training is in float32: half the size, and what who uses the base expects.
        # `jaxpolya export --dtype float32` gives the trained values themselves.
        checkpoint = self._load(model)
        export_checkpoint(target, checkpoint.params, checkpoint.meta, card=card)
        if is_primary():
            write_whole(marker, model.identity)


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
