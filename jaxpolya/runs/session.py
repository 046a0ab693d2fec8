"""What all phases of a run use: its checked configuration, its directory, the mesh, the models, the verifier, the display.

A `Session` is made once, before a weight is loaded, and handed to every phase. It knows nothing of the order of things; that is
`pipeline`'s. What one phase finds and another needs is not kept here: phases return it.
"""

import contextlib
import ctypes
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from etils import epath

from jaxpolya.config import LoraConfig, RunConfig, Sampling
from jaxpolya.config.file import dump_config
from jaxpolya.decode.engine import Engine, Usage
from jaxpolya.decode.kernel_choice import decode_attention
from jaxpolya.errors import InputError, RunError
from jaxpolya.evaluation.audit import warnings
from jaxpolya.files import write_whole
from jaxpolya.hf.checkpoint import Checkpoint, CheckpointMeta, inspect_checkpoint, load_checkpoint, with_adapter
from jaxpolya.hf.source import fingerprint
from jaxpolya.keys import Key
from jaxpolya.models.decoder import Params
from jaxpolya.models.kernel_choice import with_kernel
from jaxpolya.parallel.hosts import from_primary, together, wait_for_all
from jaxpolya.parallel.mesh import is_primary, make_mesh
from jaxpolya.polya.catalogue import Slot, load_catalogue
from jaxpolya.polya.lessons import Lessons
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.progress import Display
from jaxpolya.records import Question, Record, Sample, Verdict, VerdictRecord, read_records, write_records
from jaxpolya.rollout import replay
from jaxpolya.rollout.respond import Draws, Prompt, make_prompts, respond
from jaxpolya.runs import checks
from jaxpolya.runs.configurations import Configuration, begin, note_stages
from jaxpolya.runs.identity import meaning, stage_fields
from jaxpolya.runs.plan import PHASES, planned
from jaxpolya.runs.results import brief
from jaxpolya.runs.stages import FORMAT, FORMAT_LINE, KNOWN_BY_ALL, Clock, RunDirectory, Stage, provenance
from jaxpolya.train.adapters import adapted
from jaxpolya.train.sinks import FILE, LoggedStage, SinkProgress, Sinks, make_sinks
from jaxpolya.verify.judge import Policy
from jaxpolya.verify.pool import Pool

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the run, loaded when it is needed."""

    identity: str
    """The base checkpoint's fingerprint, or the directory name of the stage that made it."""
    source: str
    made_here: bool = False
    """Whether a stage of this run left it."""
    base: "Model | None" = None
    """The model that its files hold only adapters of."""

    @classmethod
    def of(cls, stage: Stage, step: int | None = None, base: "Model | None" = None) -> "Model":
        """The model that a training stage leaves, or the one that it kept after so many steps."""
        if step is None:
            return cls(stage.directory.name, str(stage.directory / "model"), made_here=True, base=base)
        return cls(f"{stage.directory.name}@{step}", str(kept_model(stage.directory, step)), made_here=True, base=base)

    @classmethod
    def named(cls, run: Path, source: str) -> "Model":
        """The model that results name: a stage's as a path from the run's directory, or the base model."""
        within = run / source
        return cls(within.parent.name, str(within), made_here=True) if source.startswith("stages/") else cls(source, source)


def kept_model(directory: Path, step: int) -> Path:
    """Where a training stage keeps its model after so many steps."""
    return directory / "models" / f"{step:06d}"


class Enough(Exception):
    """The one phase that was asked for is done."""


class Session:
    """One run's tools."""

    pool: Pool
    """The verifier; there while the session is open."""
    configuration: Configuration
    """What is recorded of the configuration; on the primary host, while the session is open."""

    def __init__(self, config: RunConfig, display: Display | None = None, *, only: str | None = None):
        """Checks everything that can be checked before a weight is loaded.

        Args:
          config: the run.
          display: where progress is shown.
          only: the one phase to do; those before it must be done.

        Raises:
          ConfigError, InputError: what was asked for can't be done, and why.
        """
        checks.check_phase(config, only)
        self.config, self.display, self.only = config, display or Display(), only
        self.directory = RunDirectory(config.output / config.name)
        self.mesh = make_mesh(config.mesh)
        checks.check_rows(config, self.mesh)
        with checks.saying_where(config):
            checks.check_files(config)
            checks.check_sources(config)
        with checks.saying_where(config):
            self.meta: CheckpointMeta = inspect_checkpoint(config.model.source, revision=config.model.revision)
        self._tell(self.meta)
        checks.check_lengths(config, self.meta.config.context)
        catalogue = config.generate.catalogue if config.generate else None
        with checks.saying_where(config):
            self.catalogue = load_catalogue(catalogue)
        self.builder = PromptBuilder(
            self.meta.tokenizer,
            chat=config.model.chat,
            system=config.model.system,
            chat_arguments=config.model.chat_arguments,
            frame=self.catalogue.frame,
        )
        self.meta = dataclasses.replace(self.meta, stop_ids=self.builder.stop_ids(self.meta.stop_ids))
        checks.check_answers(config, self.meta, self.builder)
        checks.check_replay(config, self.text_model)
        checks.check_judge(config, self.catalogue, self.builder, self.meta.config.context)
        self.slots: dict[str, list[Slot]] = checks.make_slots(config, self.catalogue)
        self.dtype = jnp.dtype(config.model.compute_dtype)
        decoder, lacking = with_kernel(self.meta.config, config.model.attention, self.dtype, self.mesh)
        _, lacking_there = decode_attention(decoder, config.decode.attention, self.dtype, self.mesh)  # an engine asks for its own rows
        for said in filter(None, (lacking, lacking_there)):
            self.display.note(f"note: {said}")
        self.meta = dataclasses.replace(self.meta, config=decoder)
        self.provenance = provenance(self.mesh.shape, f"{jax.device_count()} × {jax.devices()[0].device_kind}", decoder.attention)
        self.stages: dict[Key, Stage] = {}
        """The stages that this start has come to, in their order."""
        self._plan = planned(config)
        self._engines: list[Engine] = []  # of the stage that is being done
        self._loaded: tuple[str, Checkpoint] | None = None
        self._phase = ""

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Holds the run's directory and the verifier's processes. Raises `MachineError` where another process works on the run."""
        if (number := self.directory.check_format()) is not None and number < KNOWN_BY_ALL:
            self.display.note(
                f"{self.directory.path} was begun by an earlier version of jaxpolya, whose stages are known by less than their results "
                "rest on: they are left where they are, and done anew"
            )
        verify = self.config.verify
        policy = Policy(unevaluated=verify.math.unevaluated, modules=tuple(verify.code.modules))
        with (
            self.directory.lock() if is_primary() else contextlib.nullcontext(),
            Pool(verify.workers, verify.deadline, verify.memory_mb, policy) as self.pool,
        ):
            if is_primary():
                with checks.saying_where(self.config):
                    self.configuration = begin(self.directory.path, self.config)
                self.display.run_begins(self.directory.path, self.configuration.id)
                write_whole(self.directory.path / "config.yaml", f"{FORMAT_LINE}{FORMAT}\n{dump_config(self.config)}")
            wait_for_all("start")
            yield

    def phase(self, name: str, work: Callable[Concatenate["Session", P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does one phase. Raises `Enough` after the one that was asked for, unless it is the last."""
        self._phase = name
        outcome = work(self, *args, **kwargs)
        if name == self.only != PHASES[-1]:
            raise Enough
        return outcome

    # Stages ----------------------------------------------------------------------------------------------------------------

    def stage(self, key: Key, identity: Mapping[str, Any]) -> Stage:
        """The stage of a key, known by its identity."""
        if key not in self._plan:
            raise ValueError(f"the stage {key.name} isn't planned")
        self.stages[key] = self.directory.stage(key, identity)
        if is_primary():
            reached = [stage.directory.name for stage in self.stages.values()]
            self.configuration = note_stages(self.directory.path, self.configuration, reached, all_of_them=False)
        return self.stages[key]

    def note_stages(self, directories: Iterable[str]) -> None:
        """Records that the configuration needs these stages, by the names of their directories, and no others."""
        needed = list(dict.fromkeys(directories))
        self.configuration = note_stages(self.directory.path, self.configuration, needed, all_of_them=True)

    def do(self, stage: Stage, work: Callable[[], Mapping[str, Any]], *, judged: tuple[Path, type[Record]] | None = None) -> None:
        """Does a stage unless it is whole, and clears away what only a broken-off one needs.

        Args:
          stage: the stage.
          work: does it, and returns its stats.
          judged: the stage's file of records (`records.VerdictRecord`) whose verdicts follow the verifier's limits, and their kind. Where
            the limits have grown since, the stage is whole no longer: `work` finds all of its records there, and judges again what was
            cut short.
        """
        if judged and stage.manifest is not None:
            self._reopen_outgrown(stage, *judged)
        if not from_primary(stage.manifest is not None):
            if self.only and self._phase not in (self.only, "questions"):
                raise RunError(f"--only {self.only}: {stage.name} comes before it and is not done yet; leave --only away, or do that first")
            clock, self._engines = Clock(), []
            if is_primary():
                stage.start(self.provenance)
                self.display.stage_begins(stage.directory.name, len(self.stages), len(self._plan), self._to_come(stage.key))
            wait_for_all(stage.name)
            try:
                stats = work()
            finally:
                if is_primary():
                    stage.note_seconds(clock.seconds)
            _give_back_memory()
            wait_for_all(f"{stage.name} done")
            if is_primary():
                busy = sum((engine.usage for engine in self._engines), Usage()).busy
                decoding = sorted({engine.plan.attention for engine in self._engines})
                by = self.provenance | ({"decoding": " and ".join(decoding)} if decoding else {})
                manifest = stage.finish(stats=stats, provenance=by, rows_busy=busy)
                where, rows = f"[{len(self.stages)}/{len(self._plan)}]", "" if busy is None else f", rows {100 * busy:.0f} % busy"
                self.display.note(f"{where} {stage.name}: done in {manifest['seconds']:.1f} s; {brief(stats)}{rows}")
                for words in warnings(stats.get("audit", {})).values():
                    self.display.note(f"warning: {stage.name}: {words}")
            wait_for_all(f"{stage.name} whole")
        elif trouble := from_primary(stage.changed_file() if is_primary() else None):
            raise InputError(trouble)
        if is_primary():
            shutil.rmtree(stage.directory / "checkpoints", ignore_errors=True)

    def _to_come(self, key: Key) -> float | None:
        """Seconds that the stages after one have taken at least, as far as stages of their kinds were done in this directory."""
        took: dict[str, list[float]] = {}
        for manifest in self.directory.manifests():
            took.setdefault(manifest["stage"].partition("-")[0], []).append(manifest["seconds"])
        after = self._plan[self._plan.index(key) + 1 :]
        known = [sum(took[later.what]) / len(took[later.what]) for later in after if later.what in took and later not in self.stages]
        return sum(known) if known else None

    def _reopen_outgrown(self, stage: Stage, file: Path, kind: type[Record]) -> None:
        """Takes the manifest from a whole stage that has verdicts which smaller limits cut short. Raises `RunError` under `--only`."""
        verdicts, verify = stage.stats["verdicts"], self.config.verify
        cut = 0
        if is_primary() and any(verdicts.get(name) for name in Verdict.LIMITED) and not stage.changed_file():
            records = read_records(file, kind)
            cut = sum(isinstance(one, VerdictRecord) and one.outgrown(verify.deadline, verify.memory_mb) for one in records)
        if not (cut := from_primary(cut)):
            return
        what = f"{stage.name}: {cut} verdicts were cut short by smaller limits than verify.deadline and verify.memory_mb set now"
        if self.only and self._phase != self.only:
            raise RunError(f"--only {self.only}: {what}, and have to be found again first; leave --only away")
        self.display.note(f"{what}; they are judged again")
        if is_primary():
            stage.reopen()
            (stage.directory / FILE).unlink(missing_ok=True)  # other verdicts are other numbers: sinks are told them as a new stage's
        wait_for_all(f"{stage.name} again")

    def train_again(self, stage: Stage, steps: Sequence[int]) -> None:
        """Takes back a training that is past some of these steps, whose models it didn't keep: it is done again from its recorded rollouts.

        Raises `RunError` under `--only` of a later phase.
        """
        checkpoints = stage.directory / "checkpoints"
        saved = [int(path.name) for path in checkpoints.glob("*") if path.name.isdigit()] if checkpoints.is_dir() else []
        whole, past = from_primary([stage.manifest is not None, max(saved, default=0)])
        if not whole and past < min(steps):
            return
        what = f"{stage.name}: the models of the steps {', '.join(map(str, steps))} were not kept"
        if self.only and self._phase != self.only:
            raise RunError(f"--only {self.only}: {what}, and have to be trained again first; leave --only away")
        self.display.note(f"{what}; it is trained again from its recorded rollouts, and nothing is drawn anew")
        if is_primary():
            shutil.rmtree(checkpoints, ignore_errors=True)
            if whole:
                stage.reopen()
        wait_for_all(f"{stage.name} again")

    @property
    def policy(self) -> dict[str, Any]:
        """The settings that verdicts depend on, for the identities of stages that judge."""
        return {"verify": stage_fields(self.config.verify), **meaning("prompts", "verdicts")}

    def audited(self, audit: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The audit of a stage's rewards, for its manifest. One host looks: no bit depends on what it sees."""
        with together():
            return {"audit": audit()} if is_primary() else {}

    @contextlib.contextmanager
    def logged(self, stage: Stage) -> Iterator[Sinks]:
        """The sinks of a stage; they are closed however it ends."""
        sinks = Sinks()
        if self.config.log and is_primary():
            known_by, settings = SinkProgress(stage.directory).id, self.config.model_dump(mode="json")
            logged = LoggedStage(self.config.name, stage.name, stage.directory, known_by, settings)
            sinks = Sinks(logged, make_sinks(self.config.log), self.display.note)
        with contextlib.closing(sinks):
            yield sinks

    # Models ----------------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def base(self) -> Model:
        """The model that the run starts from."""
        return Model(fingerprint(self.config.model.source, self.config.model.revision), self.config.model.source)

    @property
    def text_model(self) -> replay.Model:
        """What recorded rollouts must fit."""
        return replay.Model(self.meta.config.vocab_size, self.builder.encode, self.builder.spelling.decode)

    @property
    def lessons(self) -> Lessons:
        """What makes fine-tuning rows of responses and traces."""
        return Lessons(self.meta.tokenizer, self.builder, self.meta.stop_ids)

    def load(self, model: Model) -> Checkpoint:
        """A model's parameters; the last one loaded is kept."""
        if self._loaded is None or self._loaded[0] != model.identity:
            self._loaded = None  # frees the one before first
            try:
                self._loaded = model.identity, self._read(model)
            except InputError as error:
                if not model.made_here:
                    raise
                raise InputError(
                    f"{error}\n  A stage of this run made that model; delete {Path(model.source).parent} to do it again"
                ) from None
            if not model.made_here:  # the files say how they hold each tensor, which what is made of them goes on with
                loaded_meta = self._loaded[1].meta
                if self.meta.note is None:  # what wasn't fetched for the look at the start
                    self._tell(loaded_meta)
                self.meta = dataclasses.replace(self.meta, stored=loaded_meta.stored, left_out=loaded_meta.left_out)
        return self._loaded[1]

    def _read(self, model: Model) -> Checkpoint:
        if model.base:  # where this run finds it, whatever the adapters say of it
            return with_adapter(self._read(model.base), model.source, epath.Path(model.source))
        return load_checkpoint(model.source, mesh=self.mesh, revision=None if model.made_here else self.config.model.revision)

    def _tell(self, meta: CheckpointMeta) -> None:
        if meta.note:
            self.display.note(f"note: {meta.note}")

    def take(self, model: Model) -> Params:
        """A model's parameters, for a caller who consumes them: no second copy is kept."""
        params = self.load(model).params
        self._loaded = None
        return params

    def known_by(self, model: Model) -> dict[str, Any]:
        """What a stage that asks or trains a model is known by, beside its own fields."""
        return {"model": model.identity, **stage_fields(self.config.model), "decode": stage_fields(self.config.decode)}

    # Asking ----------------------------------------------------------------------------------------------------------------

    def prompts(
        self, pairs: Sequence[tuple[Question, Slot | None]], sampling: Sampling, key: str, *, four_phases: bool = False
    ) -> tuple[list[Prompt], int]:
        """(prompts that fit the model, how many were left out for their length). `key` names the stage of the configuration that asks."""
        room = self.meta.config.context - sampling.max_new_tokens
        return make_prompts(self.builder, pairs, longest=min(sampling.max_prompt_tokens or room, room), key=key, four_phases=four_phases)

    def engine(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        samples: int,
        model: str,
        *,
        at_a_time: int | None = None,
        lora: LoraConfig | None = None,
    ) -> Engine:
        """A decode engine for these prompts' lengths.

        `model` is what errors call the model, `at_a_time` the prompts of one call, `lora` the adapters that it will be given beside the
        model's own parameters.
        """
        engine = Engine(
            adapted(self.meta.config, lora),
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
        self._engines.append(engine)
        return engine

    def respond(self, prompts: Sequence[Prompt], sampling: Sampling, draws: Draws, model: Model, file: Path, title: str) -> list[Sample]:
        """All samples of all prompts with their verdicts, in their order, as the file holds them too."""
        engine = self.engine(prompts, sampling, draws.samples, model.source)
        with self.display.task(title, len(prompts) * draws.samples) as task:
            drawn = respond(engine, lambda: self.load(model).params, prompts, draws, pool=self.pool, out=file, task=task)
        if is_primary():
            write_records(file, drawn)  # verdicts came in any order, and what follows (the first correct one, resamples) goes by this one
        return drawn


def _give_back_memory() -> None:
    """Returns freed memory to the system: on a CPU the arrays are the host's, and glibc keeps for itself what a stage has freed.

    The quickstart's third RL arm stood on 2 GB of that.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
