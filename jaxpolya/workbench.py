"""What the phases of a run work with: its checked configuration, its stages, its models, and ways to ask them.

`Workbench` knows nothing of the order of things; that is `pipeline`'s. Whatever can be known to fail is found here, before a
weight is loaded.
"""

import contextlib
import ctypes
import dataclasses
import difflib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxpolya.artifacts import Clock, RunDirectory, Stage, provenance
from jaxpolya.config import RunConfig, Sampling
from jaxpolya.decode.engine import Engine
from jaxpolya.errors import ConfigError, InputError, RunError
from jaxpolya.evaluate.audit import warnings
from jaxpolya.evaluate.model_judge import check_room
from jaxpolya.hf.checkpoint import Checkpoint, CheckpointMeta, inspect_checkpoint, load_checkpoint
from jaxpolya.hf.reward import inspect_reward_model
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.hosts import from_primary, together, wait_for_all
from jaxpolya.parallel.mesh import is_primary, make_mesh
from jaxpolya.polya.adherence import AdherenceScorer
from jaxpolya.polya.catalogue import Slot, load_catalogue, most_slots, slots
from jaxpolya.polya.prompts import KINDS, PromptBuilder
from jaxpolya.polya.respond import Asking, Prompt, make_prompts, respond
from jaxpolya.progress import Display
from jaxpolya.records import Judged, Question, Record, Sample, Verdict, read_records, write_records
from jaxpolya.results import brief
from jaxpolya.stages import meaning, stage_fields
from jaxpolya.train.algorithms import make_algorithm
from jaxpolya.train.sft import check_rows
from jaxpolya.verify.judge import Policy
from jaxpolya.verify.pool import Pool

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


class Workbench:
    """One run's tools."""

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
        self._tell(self.meta)
        self._check_lengths()
        self.catalogue = load_catalogue(config.generate.catalogue if config.generate else None)
        self.builder = PromptBuilder(
            self.meta.tokenizer,
            chat=config.model.chat,
            system=config.model.system,
            chat_arguments=config.model.chat_arguments,
            frame=self.catalogue.frame,
        )
        if config.sft_arms:
            self._check_answers()
        if config.eval.composition == "model":
            check_room(self.builder, self.catalogue.heuristics, self.meta.config.context)
        self.slots = self._make_slots()
        self.dtype = jnp.dtype(config.model.compute_dtype)
        self.provenance = provenance(self.mesh.shape, f"{jax.device_count()} × {jax.devices()[0].device_kind}")
        self._loaded: tuple[str, Checkpoint] | None = None
        self._adherence: AdherenceScorer | None = None
        self._stages: dict[str, Stage] = {}
        self._phase = PHASES[0]

    # Checks ----------------------------------------------------------------------------------------------------------------

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
        positions = self.meta.config.context
        for key, stage in (("generate", self.config.generate), ("rl", self.config.rl), ("eval", self.config.eval)):
            if stage is not None and stage.sampling.max_new_tokens >= positions:
                raise ConfigError(
                    f"{key}.sampling.max_new_tokens ({stage.sampling.max_new_tokens}) leaves no room for a prompt: "
                    f"the model has {positions} positions; lower it"
                )

    def _tell(self, meta: CheckpointMeta) -> None:
        if meta.note:
            self.display.note(f"note: {meta.note}")

    def _check_answers(self) -> None:
        """Raises where no response could be taught."""
        if not self.meta.stop_ids:
            raise InputError(
                f"{self.meta.source}: names no end-of-text token, so responses can't be taught to end; add eos_token_id to its config"
            )
        self.builder.check_answers()

    def _check_files(self) -> None:
        """Raises where an input of a later stage is missing."""
        select = self.config.select
        if "external" in self.config.sft_arms and select.external and not select.external.is_file():
            raise InputError(f"select.external: {select.external} is not a file; name JSON lines of {{question_id or question, response}}")
        if self.config.sft_arms and select.adherence == "reward_model" and select.reward_model:
            inspect_reward_model(select.reward_model)
        if self.config.rl_arms and self.config.rl:
            make_algorithm(self.config.rl)

    def _check_rows(self) -> None:
        for key, stage, used in (("sft", self.config.sft, self.config.sft_arms), ("rl", self.config.rl, self.config.rl_arms)):
            if stage is not None and used:
                check_rows(stage.batching.micro_rows, self.mesh, f"{key}.batching.micro_rows")

    # Stages ----------------------------------------------------------------------------------------------------------------

    def _count_stages(self) -> int:
        """Stages of the whole run."""
        kinds, sets = set(self.config.sft_arms), len(self.config.eval.questions)
        labelled = self.config.eval.composition != "none"
        evaluations = len(self.config.arms) * sets * (1 + self.config.eval.greedy + labelled)
        generated = bool(kinds) and self.config.generate is not None
        generate = ("star" in kinds) + bool({"polya", "wrong"} & kinds) if generated else 0
        questions = 2 * generated + 2 * bool(self.config.rl_arms) + sets  # those to learn from are compared with the others
        return questions + ("external" in kinds) + generate + bool(kinds) + len(kinds) + len(self.config.rl_arms) + evaluations

    def _stage(self, name: str, identity: Mapping[str, Any]) -> Stage:
        self._stages[name] = self.run_directory.stage(name, identity)
        return self._stages[name]

    def _do(self, stage: Stage, work: Callable[[], Mapping[str, Any]], *, judged: tuple[Path, type[Record]] | None = None) -> None:
        """Does a stage unless it is whole, and clears away what only a broken-off one needs.

        Args:
          stage: the stage.
          work: does it, and returns its stats.
          judged: the stage's file of records (`records.Judged`) whose verdicts follow the verifier's limits, and their kind. Where the
            limits have grown since, the stage is whole no longer: `work` finds all of its records there, and judges again what was cut
            short.
        """
        if judged and stage.manifest is not None:
            self._reopen_outgrown(stage, *judged)
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
            _give_back_memory()
            wait_for_all(f"{stage.name} done")
            if is_primary():
                manifest = stage.finish(stats=stats, provenance=self.provenance)
                done, planned = len(self._stages), self._count_stages()
                self.display.note(f"[{done}/{planned}] {stage.name}: done in {manifest['seconds']:.1f} s; {brief(stats)}")
                for words in warnings(stats.get("audit", {})).values():
                    self.display.note(f"warning: {stage.name}: {words}")
            wait_for_all(f"{stage.name} whole")
        elif trouble := from_primary(stage.changed_file() if is_primary() else None):
            raise InputError(trouble)
        if is_primary():
            shutil.rmtree(stage.directory / "checkpoints", ignore_errors=True)

    def _reopen_outgrown(self, stage: Stage, file: Path, kind: type[Record]) -> None:
        """Takes the manifest from a whole stage that has verdicts which smaller limits cut short. Raises `RunError` under `--only`."""
        verdicts, verify = (stage.manifest or {})["stats"]["verdicts"], self.config.verify
        cut = 0
        if is_primary() and any(verdicts.get(name) for name in Verdict.LIMITED) and not stage.changed_file():
            found = read_records(file, kind)
            cut = sum(isinstance(one, Judged) and one.outgrown(verify.deadline, verify.memory_mb) for one in found)
        if not (cut := from_primary(cut)):
            return
        what = f"{stage.name}: {cut} verdicts were cut short by smaller limits than verify.deadline and verify.memory_mb set now"
        if self._only and self._phase != self._only:
            raise RunError(f"--only {self._only}: {what}, and have to be found again first; leave --only away")
        self.display.note(f"{what}; they are judged again")
        if is_primary():
            stage.reopen()
        wait_for_all(f"{stage.name} again")

    # Models ----------------------------------------------------------------------------------------------------------------

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
            if not model.made_here:  # the files say how they hold each tensor, which what is made of them goes on with
                found = self._loaded[1].meta
                if self.meta.note is None:  # what wasn't fetched for the look at the start
                    self._tell(found)
                self.meta = dataclasses.replace(self.meta, stored=found.stored, left_out=found.left_out)
        return self._loaded[1]

    def _take(self, model: Model) -> Params:
        """A model's parameters, for a caller who consumes them: no second copy is kept."""
        params = self._load(model).params
        self._loaded = None
        return params

    def _model_identity(self, model: Model) -> dict[str, Any]:
        """What a stage that asks or trains a model is known by, beside its own fields."""
        return {"model": model.identity, **stage_fields(self.config.model), "decode": stage_fields(self.config.decode)}

    # Asking ----------------------------------------------------------------------------------------------------------------

    @property
    def _policy(self) -> dict[str, Any]:
        """The settings that verdicts depend on, for the identities of stages that judge."""
        return {"verify": stage_fields(self.config.verify), **meaning("prompts", "verdicts")}

    def _pool(self) -> Pool:
        verify = self.config.verify
        return Pool(
            verify.workers,
            verify.deadline,
            verify.memory_mb,
            Policy(unevaluated=verify.math.unevaluated, modules=tuple(verify.code.modules)),
        )

    def _prompts(
        self, pairs: Sequence[tuple[Question, Slot | None]], sampling: Sampling, key: str, *, four_phases: bool = False
    ) -> tuple[list[Prompt], int]:
        room = self.meta.config.context - sampling.max_new_tokens
        return make_prompts(self.builder, pairs, longest=min(sampling.max_prompt_tokens or room, room), key=key, four_phases=four_phases)

    def _engine(self, prompts: Sequence[Prompt], sampling: Sampling, samples: int, model: str, *, at_a_time: int | None = None) -> Engine:
        return Engine(
            self.meta.config,
            self.mesh,
            sampling=sampling.model_copy(update={"stop": [*sampling.stop, *self.builder.stops]}),
            prompts=at_a_time or len(prompts),
            samples=samples,
            longest_prompt=max(len(prompt.ids) for prompt in prompts),
            stop_ids=self.meta.stop_ids,
            decode=self.builder.spelling.decode,
            engine=self.config.decode,
            dtype=self.dtype,
            model=model,
        )

    def _respond(
        self, prompts: Sequence[Prompt], sampling: Sampling, asking: Asking, model: Model, pool: Pool, file: Path, title: str
    ) -> list[Sample]:
        engine = self._engine(prompts, sampling, asking.samples, model.source)
        with self.display.task(title, len(prompts) * asking.samples) as task:
            drawn = respond(engine, lambda: self._load(model).params, prompts, asking, pool=pool, out=file, task=task)
        if is_primary():
            write_records(file, drawn)  # verdicts came in any order, and what follows (the first correct one, resamples) goes by this one
        return drawn

    def _audited(self, audit: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The audit of a stage's rewards, for its manifest. One host looks: no bit depends on what it sees."""
        with together():
            return {"audit": audit()} if is_primary() else {}


def _give_back_memory() -> None:
    """Returns freed memory to the system: on a CPU the arrays are the host's, and glibc keeps for itself what a stage has freed.

    The quickstart's third RL arm stood on 2 GB of that.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _absent_phases(config: RunConfig) -> list[str]:
    """The phases in which the run's arms have nothing to do."""
    kinds = set(config.sft_arms)
    needed = {"generate": kinds - {"external"}, "select": kinds, "sft": kinds, "rl": config.rl_arms}
    return [phase for phase, arms in needed.items() if not arms]
