"""Asking a model and judging what it says: the one loop under generate, rl and eval.

Decoding, verifying and writing overlap: finished responses go to the verifier pool at once, and each is written with its
verdict as soon as that is known. The file is the memory: what it holds is not asked again, so that a killed stage goes on
where it was. What the verifier's limits cut short is judged again under larger ones, but for RL, whose model was trained on what was
judged then. A sample's randomness is addressed by its place in the list of prompts, so what remains is drawn as if nothing
had happened.

With several hosts, each verifies its share of the responses; verdicts are exchanged after every burst, and the primary host
writes.
"""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax

from jaxpolya.decode.engine import Completion, Engine, Request, shared_tokens
from jaxpolya.errors import ConfigError, InputError, MachineError
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.hosts import exchange, wait_for_all
from jaxpolya.parallel.mesh import is_primary
from jaxpolya.polya.catalogue import Slot
from jaxpolya.polya.prompts import PromptBuilder, exemplar_kind
from jaxpolya.progress import Task
from jaxpolya.records import Appender, Question, Sample, Verdict, VerdictRecord, read_records, write_records
from jaxpolya.rollout.rewards import too_many_failed
from jaxpolya.verify.judge import Item
from jaxpolya.verify.kinds import is_own, verifier_of
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.speech import opened_thought

DRAINED_AT_ONCE = 64
"""Verdicts that are waited for before they are written, once decoding has ended."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A question as it is put to the model."""

    question: Question
    text: str
    ids: tuple[int, ...]
    slot: Slot | None = None

    @property
    def id(self) -> str:
        """Unique in a stage: the question, and the slot it is asked under."""
        return self.question.id if self.slot is None else f"{self.question.id}/{self.slot.index}-{self.slot.heuristic.key}"


@dataclasses.dataclass(frozen=True)
class Draws:
    """What all prompts of one call share, and every record says."""

    arm: str
    stage: str
    samples: int
    seed: int
    first_sequence: int = 0
    """Sequence id of the first sample; calls of one arm, stage and seed must not share sequences."""
    step: int | None = None

    @property
    def judges_again(self) -> bool:
        """Whether verdicts that smaller limits cut short are found again under larger ones. What a training went by stays."""
        return self.stage not in ("rl", "validation")

    @property
    def stream(self) -> int:
        """The seed that is drawn from: another one for each stage and, in generation, each arm, whose draws are to be independent.

        Arms share their draws in RL and evaluation, where common random numbers make their differences less noisy.
        """
        label = f"{self.stage}/{self.arm}" if self.stage == "generate" else self.stage
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{label}".encode()).digest()[:4])


def make_prompts(
    builder: PromptBuilder, questions: Sequence[tuple[Question, Slot | None]], *, longest: int, key: str, four_phases: bool = False
) -> tuple[list[Prompt], int]:
    """(prompts of at most `longest` tokens, how many were left out for being longer).

    Raises `InputError` if none is left; `key` names the stage of the configuration that asks.
    """
    made = []
    for question, slot in questions:
        built = builder.build(question, slot, four_phases=four_phases)
        made.append(Prompt(question, built.text, built.ids, slot))
    kept = [prompt for prompt in made if len(prompt.ids) <= longest]
    if made and not kept:
        shortest = min(len(prompt.ids) for prompt in made)
        raise InputError(
            f"{key}: all {len(made)} prompts are longer than {longest} tokens (the shortest has {shortest}); raise "
            f"{key}.sampling.max_prompt_tokens, lower {key}.sampling.max_new_tokens or the exemplars, or take a model with more positions"
        )
    return kept, len(made) - len(kept)


def respond(
    engine: Engine,
    params: Callable[[], Params],
    prompts: Sequence[Prompt],
    draws: Draws,
    *,
    pool: Pool,
    out: Path,
    task: Task | None = None,
) -> list[Sample]:
    """All samples of all prompts with their verdicts, by prompt and index; what `out` lacks is drawn, judged and appended.

    Args:
      engine: made for these prompts' lengths and this number of samples.
      params: gives the training parameters on the mesh; not called where nothing is left to draw.
      prompts: with unique ids; their order addresses the randomness.
      asking: what the records say.
      pool: the verifier.
      out: JSON lines of samples.
      task: is advanced by one a sample.

    Raises:
      InputError: `out` holds samples of something else.
      MachineError: the verifier failed on more than a few responses.
    """
    places = {f"{prompt.id}#{index}": (prompt, index) for prompt in prompts for index in range(draws.samples)}
    if len(places) < len(prompts) * draws.samples:
        raise ValueError("prompts must have unique ids")
    known = _read_known(out, places)
    shared = _shared(prompts)
    requests = []
    for number, prompt in enumerate(prompts):
        wanted = [index for index in range(draws.samples) if f"{prompt.id}#{index}" not in known]
        if wanted:
            first = draws.first_sequence + number * draws.samples
            requests.append(Request(prompt.id, prompt.ids, first, wanted, shared[number]))
    if task is not None:
        task.phase("asking")
        task.advance(len(known))
    if requests:
        by_id = {prompt.id: prompt for prompt in prompts}
        with _Writer(out, draws, pool, by_id, known, task) as writer:
            for completions in engine.run(params(), requests, draws.stream):
                writer.take(completions)
            if task is not None:
                task.phase("judging")
            writer.drain()
    if draws.judges_again:
        cut = [sample for sample in known.values() if sample.verdict in Verdict.LIMITED]
        known |= _judged_again([sample for sample in cut if sample.outgrown(pool.deadline, pool.memory_mb)], places, pool)
    samples = [known[sample_id] for sample_id in places]
    require_judged(samples, out)
    return samples


def _shared(prompts: Sequence[Prompt]) -> list[int]:
    """Leading tokens that each prompt shares with those under its slot. Of all prompts, drawn before or not: bits depend on it."""
    by_slot: dict[Any, list[tuple[int, ...]]] = collections.defaultdict(list)
    slots = [prompt.slot and (prompt.slot.index, exemplar_kind(prompt.question)) for prompt in prompts]
    for slot, prompt in zip(slots, prompts, strict=True):
        by_slot[slot].append(prompt.ids)
    common = {slot: shared_tokens(ids) for slot, ids in by_slot.items()}
    return [common[slot] for slot in slots]


def _read_known(out: Path, places: Mapping[str, tuple[Prompt, int]]) -> dict[str, Sample]:
    """The samples that the file already holds. Every host reads it: what is in it may be too much to send around."""
    if is_primary() and out.exists():
        Appender(out).close()  # mends a torn last line
        samples = read_records(out, Sample)
        judged = [sample for sample in samples if sample.verdict != "harness_error"]
        if len(judged) < len(samples):  # our failure, not the response's: it is drawn (alike) and judged again
            write_records(out, judged)
    wait_for_all(f"mended {out}")
    known = {sample.id: sample for sample in (read_records(out, Sample) if out.exists() else [])}
    wait_for_all(f"read {out}")
    for sample_id, sample in known.items():
        if sample_id not in places or sample.prompt != places[sample_id][0].text:
            raise InputError(
                f"{out}: this stage doesn't ask for the sample {sample_id}, or asks it otherwise; the file was edited. Delete it"
            )
    return known


def _judged_again(samples: Sequence[Sample], places: Mapping[str, tuple[Prompt, int]], pool: Pool) -> dict[str, Sample]:
    """The samples with new verdicts, by id."""
    verdicts = judge_all([_item(places[sample.id][0], sample.response, sample.id) for sample in samples], pool)
    return {sample.id: dataclasses.replace(sample, **fields) for sample, fields in zip(samples, verdicts, strict=True)}


def judge_all(items: Sequence[Item], pool: Pool) -> list[dict[str, Any]]:
    """The verdicts on items that all hosts hold, as the fields of their records; each host judges its share."""
    if not items:
        return []
    mine = range(jax.process_index(), len(items), jax.process_count())
    verdicts = pool.verify([items[i] for i in mine])
    fields: dict[int, dict[str, Any]] = {}
    for share in exchange({str(i): verdict.to_json() for i, verdict in zip(mine, verdicts, strict=True)}):
        fields |= {int(i): _verdict_fields(Verdict.from_json(verdict), pool) for i, verdict in share.items()}
    return [fields[i] for i in range(len(items))]


def try_kinds(questions: Sequence[Question], pool: Pool) -> None:
    """Has the users' kinds among some questions judge made-up responses, before a weight is loaded: what their first question's reference
    answer is when it is said in several ways, and nothing.

    Raises `ConfigError` where one fails on them.
    """
    firsts = {question.verifier: question for question in reversed(questions) if is_own(question.verifier)}
    items = []
    for kind, question in firsts.items():
        statement = verifier_of(kind).statement(question, question.answer)
        responses = (question.answer, f"The answer is {question.answer}.", statement or "", "")
        items += [Item.of(question, response, question.id) for response in responses]
    for item, verdict in zip(items, judge_all(items, pool), strict=True):
        if verdict["verdict"] in ("harness_error", *Verdict.LIMITED):
            trouble = verdict["detail"] or "it took too long"
            raise ConfigError(
                f"verifier: tried on the question {item.id} with the response {item.response[:60]!r}: {trouble}; what can't be judged "
                "right is False, and never an error"
            )


def _item(prompt: Prompt, response: str, sample_id: str) -> Item:
    """What the verifier is asked about a response."""
    return Item.of(prompt.question, opened_thought(prompt.text) + response, sample_id)


def _verdict_fields(verdict: Verdict, pool: Pool) -> dict[str, Any]:
    """The fields of a sample that its verdict fills in, all of them."""
    limited = verdict.verdict in Verdict.LIMITED
    limits = {"deadline": pool.deadline if limited else None, "memory_mb": pool.memory_mb if limited else None}
    return vars(verdict) | limits


def require_judged(records: Sequence[VerdictRecord], out: Path) -> None:
    """Raises `MachineError` where the verifier failed on more than a few responses: what follows would learn from its failure."""
    failed = [record for record in records if record.verdict == "harness_error"]
    if too_many_failed(len(failed), len(records)):
        questions = collections.Counter(record.question_id for record in failed)
        named = ", ".join(question for question, _ in questions.most_common(3))
        raise MachineError(
            f"{out}: {len(failed)} of {len(records)} responses, to {len(questions)} questions, could not be judged ({failed[0].detail}). "
            "Where that is the machine's doing, mend it (verify.memory_mb, verify.deadline); where it is a question's, leave the question "
            f"out ({named}). Then start again: the rest is kept, and these are judged again"
        )


class _Writer:
    """Takes completions, has them judged, and writes them in the order in which verdicts come."""

    def __init__(self, out: Path, draws: Draws, pool: Pool, prompts: dict[str, Prompt], known: dict[str, Sample], task: Task | None):
        self._draws, self._pool, self._prompts, self._known, self._task = draws, pool, prompts, known, task
        self._file = Appender(out) if is_primary() else None
        self._waiting: dict[str, Completion] = {}
        self._judging: dict[str, Future[Verdict]] = {}
        self._arrived = 0

    def take(self, completions: Sequence[Completion]) -> None:
        """Sends this host's share to the verifier and writes whatever has been judged."""
        for completion in completions:
            sample_id = f"{completion.request.id}#{completion.index}"
            self._waiting[sample_id] = completion
            if self._arrived % jax.process_count() == jax.process_index():
                prompt = self._prompts[completion.request.id]
                self._judging[sample_id] = self._pool.submit(_item(prompt, completion.text, sample_id))
            self._arrived += 1
        self._write_judged()

    def drain(self) -> None:
        """Waits for all verdicts and writes them, some at a time; all hosts take the same ones."""
        while self._waiting:
            mine = [sample_id for sample_id in itertools.islice(self._waiting, DRAINED_AT_ONCE) if sample_id in self._judging]
            verdicts = self._pool.results([self._judging.pop(sample_id) for sample_id in mine])
            self._write_verdicts(dict(zip(mine, verdicts, strict=True)))

    def _write_judged(self) -> None:
        ready = {sample_id: future.result() for sample_id, future in self._judging.items() if future.done()}
        for sample_id in ready:
            del self._judging[sample_id]
        self._write_verdicts(ready)

    def _write_verdicts(self, ready: Mapping[str, Verdict]) -> None:
        """Writes the verdicts of all hosts."""
        if jax.process_count() > 1:
            shares = exchange({sample_id: verdict.to_json() for sample_id, verdict in ready.items()})
            ready = {sample_id: Verdict.from_json(verdict) for share in shares for sample_id, verdict in share.items()}
        samples = [self._sample(sample_id, verdict) for sample_id, verdict in ready.items()]
        if not samples:
            return
        if self._file:
            self._file.append(*samples)
        self._known.update((sample.id, sample) for sample in samples)
        if self._task is not None:
            self._task.advance(len(samples), tokens=sum(len(sample.token_ids) for sample in samples))

    def _sample(self, sample_id: str, verdict: Verdict) -> Sample:
        completion = self._waiting.pop(sample_id)
        prompt = self._prompts[completion.request.id]
        return Sample(
            id=sample_id,
            question_id=prompt.question.id,
            arm=self._draws.arm,
            stage=self._draws.stage,
            step=self._draws.step,
            heuristic=prompt.slot.heuristic.key if prompt.slot else None,
            slot=prompt.slot.index if prompt.slot else None,
            index=completion.index,
            prompt=prompt.text,
            response=completion.text,
            token_ids=completion.tokens,
            logprobs=completion.logprobs,
            finish=completion.finish,
            seed=self._draws.seed,
            **_verdict_fields(verdict, self._pool),
        )

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
