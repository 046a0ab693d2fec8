"""The engine: keeps rows busy and hands finished responses on while others still run.

The host's loop is: give free rows their next samples, send a burst off, hand on what the burst before it finished, wait for the burst,
see which rows ended. So texts are made, judged and written while the device computes. Nothing but token ids and log-probs comes back from
the device, whole on every host, and every decision follows from them, so that all hosts decide alike.

The engine does not know what a response is worth; its caller gives requests in and iterates over completions.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxpolya.config import DecodeConfig, Sampling
from jaxpolya.data.sharing import common_tokens
from jaxpolya.decode.attention import SUFFIX_BLOCK
from jaxpolya.decode.burst import make_burst
from jaxpolya.decode.kernel_choice import decode_attention
from jaxpolya.decode.lanes import Cache, Plan, Rows, decode_copy, make_empty
from jaxpolya.decode.prefill import make_prefill, make_share, prompts_together
from jaxpolya.decode.sampling import Draw
from jaxpolya.errors import InputError, not_finite
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import batch_argument, data_shards, to_host
from jaxpolya.records import Finish

GROUP = 16
"""Rows of a lane, at most, where samples stream: more would share a prefix's reading further, and wait for more of each other's ends."""

SHARED_BLOCK = 64  # shared beginnings are whole blocks of this many tokens: few shapes to compile, and nothing for a chat header


@dataclasses.dataclass(frozen=True)
class Request:
    """Samples wanted for one prompt.

    `sequence` + i is the sequence id of sample i, the address of its randomness: give every sample of a seed another one.
    """

    id: str
    prompt: Sequence[int]
    sequence: int
    samples: Sequence[int]
    """Indices of the samples to draw; a resumed stage asks only for those that it lacks."""
    shared: int = 0
    """Leading tokens of the prompt whose prefill is shared with the requests that begin alike; see `shared_tokens`."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """One finished response."""

    request: Request
    index: int
    """Which of the request's samples."""
    text: str
    """Control tokens by their names; without the stop token or stop string that ended it."""
    tokens: list[int]
    """What was sampled, the stop token included."""
    logprobs: list[float]
    """Of each token, in nats."""
    finish: Finish


@dataclasses.dataclass(frozen=True)
class Usage:
    """What rows were there, and what came of it."""

    row_steps: int = 0
    """Tokens that they drew."""
    kept: int = 0
    """Those of them that stand in completions."""

    @property
    def busy(self) -> float | None:
        """The share that was kept; None where nothing was drawn."""
        return self.kept / self.row_steps if self.row_steps else None

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.row_steps + other.row_steps, self.kept + other.kept)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.row_steps - other.row_steps, self.kept - other.kept)


class Engine:
    """Decodes requests with one model shape and one way of sampling; `run` may be called again with other weights."""

    def __init__(
        self,
        config: DecoderConfig,
        mesh: Mesh,
        *,
        sampling: Sampling,
        prompts: int,
        samples: int,
        longest_prompt: int,
        stop_ids: Sequence[int],
        decode: Callable[[list[int]], str],
        engine: DecodeConfig = DecodeConfig(),  # noqa: B008 (frozen)
        dtype: Any = jnp.bfloat16,
        model: str = "the model",
    ):
        """An engine for prompts of up to `longest_prompt` tokens.

        Args:
          config: the decoder; where it has adapters, `run` is given them beside the base's parameters, and decodes with their sum.
          mesh: where it runs.
          sampling: lengths, temperature, top-k, top-p, stop strings.
          prompts: how many come in one `run`; no more lanes are made than they fill. Bits depend on it, so count those of the whole
            stage, whether drawn before or not.
          samples: samples per prompt; the rows that draw them share its prefix.
          longest_prompt: tokens.
          stop_ids: token ids that end a response.
          decode: token ids → text, control tokens by their names: stop strings may be such, and the verifier has to see them.
          engine: batch rows, length of a burst, what computes attention.
          dtype: compute and cache dtype.
          model: its name in errors.

        Raises:
          InputError: the prompt and response don't fit the model's positions.
          ConfigError: `engine.attention` is another device's.
        """
        if longest_prompt + sampling.max_new_tokens > config.context:
            raise InputError(
                f"a prompt of {longest_prompt} tokens and max_new_tokens {sampling.max_new_tokens} exceed the model's "
                f"{config.context} positions; lower sampling.max_prompt_tokens or sampling.max_new_tokens"
            )
        shards = data_shards(mesh)
        lanes, group, held = lane_shape(max(1, engine.rows // shards), -(-prompts // shards), samples)
        burst = engine.burst_of(sampling.max_new_tokens)
        self.mesh, self.sampling, self.stop_ids, self.decode = mesh, sampling, frozenset(stop_ids), decode
        self.model, self._config = model, config
        self.plan = Plan(
            config=config.base,
            lanes=lanes * shards,
            rows=group,
            prefix=prompt_bucket(longest_prompt - 1),
            suffix=-(-sampling.max_new_tokens // burst) * burst,
            burst=burst,
            draw=Draw(greedy=sampling.temperature == 0, top_k=sampling.top_k, top_p=sampling.top_p < 1),
            dtype=jnp.dtype(dtype),
            prompts=held,
            attention=decode_attention(config, engine.attention, dtype, mesh, lanes * shards * group)[0],
        )
        self.usage = Usage()
        """Of all runs."""
        self._shards = shards
        self._stop_array = np.array(sorted(self.stop_ids), np.int32)
        self._longest_stop = max((len(string.encode()) for string in sampling.stop), default=0)
        self._temperature = np.float32(sampling.temperature or 1.0)
        self._top_p = np.float32(sampling.top_p)

    def run(self, params: Params, requests: Sequence[Request], seed: int) -> Iterator[list[Completion]]:
        """Completions of all requests, those of each burst (perhaps none) as soon as the next one runs; alike on all hosts.

        Args:
          params: training parameters on the mesh; the decode copy lives as long as the iteration.
          requests: in order of admission.
          seed: of all randomness.

        Raises:
          InputError: the model's log-probs are not finite, so that nothing it says was drawn from anything.
        """
        plan = self.plan
        weights = decode_copy(params, self._config, self.mesh, plan.dtype)
        lanes = make_empty(plan, self.mesh)()
        key = jax.random.key(seed)
        table, beginnings = Table(plan, self._shards, self._checked(requests)), _Beginnings(plan, self.mesh, weights)
        ended: list[_Ended] = []
        while table.busy:
            lanes = self._refill(weights, lanes, table, beginnings)
            burst = make_burst(plan, self.mesh, _live_slots(plan, int(table.length_PG.max()) + plan.burst))
            lanes, tokens, logps = burst(weights, lanes, table.rows(), key, self._temperature, self._top_p)
            yield self._completions(ended)
            tokens_PGN, logps_PGN = to_host((tokens, logps))
            if not np.isfinite(logps_PGN[table.live_PG]).all():
                raise not_finite(self.model, "log-probs", plan.dtype)
            ended = self._collect(table, tokens_PGN, logps_PGN)
            self.usage += Usage(tokens_PGN.size, sum(len(row.tokens) for row in ended))
        yield self._completions(ended)

    def _checked(self, requests: Sequence[Request]) -> Sequence[Request]:
        for request in requests:
            if not 1 <= len(request.prompt) <= self.plan.prefix + 1:
                raise InputError(f"prompt {request.id} has {len(request.prompt)} tokens; this engine takes 1 to {self.plan.prefix + 1}")
        return requests

    def _refill(self, weights: Params, lanes: Any, table: "Table", beginnings: "_Beginnings") -> Any:
        """Gives free rows their next samples, and prefills the prompts that this needs, in batches of fixed size."""
        plan, shards, platform = self.plan, self._shards, self.mesh.devices.flat[0].platform
        prefill = make_prefill(plan, self.mesh)
        alike: dict[tuple[tuple[int, ...], int], list[list[tuple[int, int, Sequence[int]]]]] = {}
        for lane, place, request in table.refill():
            beginning, rest = tuple(request.prompt[: request.shared]), request.prompt[request.shared :]
            bucket = min(prompt_bucket(len(rest) - 1), plan.prefix - request.shared)
            shard, local = divmod(lane, plan.lanes // shards)
            alike.setdefault((beginning, bucket), [[] for _ in range(shards)])[shard].append((local, place, rest[:-1]))
        for (beginning, bucket), loads in alike.items():
            together = prompts_together(bucket, platform)
            for first in range(0, max(map(len, loads)), together):
                tokens_RT, at_R2 = np.zeros((shards * together, bucket), np.int32), np.full((shards * together, 2), -1, np.int32)
                for shard, load in enumerate(loads):
                    for row, (lane, place, rest) in enumerate(load[first : first + together], shard * together):
                        at_R2[row], tokens_RT[row, : len(rest)] = (lane, place), rest
                lanes = prefill(weights, lanes, beginnings.cache(beginning), *batch_argument((tokens_RT, at_R2), self.mesh))
        return lanes

    def _collect(self, table: "Table", tokens_PGN: np.ndarray, logps_PGN: np.ndarray) -> "list[_Ended]":
        """Adds a burst's tokens to their rows and takes the rows that ended."""
        limit, before_PG = self.sampling.max_new_tokens, table.length_PG.copy()
        table.add(tokens_PGN, logps_PGN)
        stops_PGN = np.isin(tokens_PGN, self._stop_array) & (before_PG[..., None] + np.arange(self.plan.burst) < limit)
        stopped_PG = np.asarray(stops_PGN.any(axis=-1))
        stop_PG = before_PG + stops_PGN.argmax(axis=-1)
        looked_at_PG = table.live_PG if self.sampling.stop else table.live_PG & (stopped_PG | (table.length_PG >= limit))
        ended = []
        for lane, row in np.argwhere(looked_at_PG).tolist():
            stop = int(stop_PG[lane, row]) if stopped_PG[lane, row] else None
            shown = min(int(table.length_PG[lane, row]), limit) if stop is None else stop + 1
            cut = self._cut(table.tokens_PGS[lane, row], int(before_PG[lane, row]), shown) if self.sampling.stop else None
            if cut is None and stop is None and shown < limit:
                continue  # no stop string in what was looked at
            length, text = cut or (shown, None)
            finish: Finish = "length" if cut is None and stop is None else "stop"
            tokens, logps = (array_PGS[lane, row, :length].copy() for array_PGS in (table.tokens_PGS, table.logps_PGS))
            request, index = table.end(lane, row)
            ended.append(_Ended(request, index, tokens, logps, finish, text, length if stop is None else stop))
        return ended

    def _completions(self, ended: "list[_Ended]") -> list[Completion]:
        return [
            Completion(
                row.request,
                row.index,
                self.decode(row.tokens[: row.spoken].tolist()) if row.text is None else row.text,
                row.tokens.tolist(),
                row.logprobs.tolist(),
                row.finish,
            )
            for row in ended
        ]

    def _cut(self, tokens_S: np.ndarray, seen: int, shown: int) -> tuple[int, str] | None:
        """(tokens up to the first one that completes a stop string, text before it) of a row; None where there is none.

        Tokens before `seen` were looked at: a string that is new lies in those after, or began in as many before them as it has bytes.
        """
        strings = self.sampling.stop
        if not any(string in self.decode(tokens_S[max(0, seen - self._longest_stop) : shown].tolist()) for string in strings):
            return None
        for length in range(max(1, seen), shown + 1):
            text = self.decode(tokens_S[:length].tolist())
            ends = [text.index(string) for string in strings if string in text]
            if ends:
                return length, text[: min(ends)]
        # Cut out of the middle of a text, a token may decode to a space more than within it.
        return None


class _Beginnings:
    """The caches of the last few beginnings that prompts share."""

    KEPT = 4  # requests come slot by slot, so that few are in use at a time

    def __init__(self, plan: Plan, mesh: Mesh, weights: Params):
        self._share, self._weights = make_share(plan, mesh), weights
        self._caches: dict[tuple[int, ...], Cache] = {}

    def cache(self, beginning: tuple[int, ...]) -> Cache:
        if not beginning:
            return []
        cached = self._caches.pop(beginning, None)
        if cached is None:
            cached = self._share(self._weights, np.array(beginning, np.int32))
        self._caches[beginning] = cached
        while len(self._caches) > self.KEPT:
            del self._caches[next(iter(self._caches))]
        return cached


@dataclasses.dataclass(frozen=True)
class _Ended:
    """A row that has ended, whose text isn't made yet."""

    request: Request
    index: int
    tokens: np.ndarray
    logprobs: np.ndarray
    finish: Finish
    text: str | None
    """Where a stop string cut it off."""
    spoken: int
    """Leading tokens that its text is made of."""


@dataclasses.dataclass
class _Load:
    """A prompt that a lane holds, with the samples that it was given of it."""

    request: Request
    place: int
    """Which of the lane's prefixes."""
    waiting: collections.deque[int]
    """Indices of the samples that no row has begun."""
    running: int = 0
    """Rows that draw one."""


class Table:
    """The host's view of the rows: which samples wait, who sits where, and how far they are.

    A row without a sample has length 0.
    """

    def __init__(self, plan: Plan, shards: int, requests: Sequence[Request]):
        P, G = plan.lanes, plan.rows
        self._waiting = collections.deque((request, request.samples) for request in requests if request.samples)
        self._left = sum(len(samples) for _, samples in self._waiting)
        self._lanes = np.arange(P).reshape(shards, -1).T.ravel()  # ties go to the data shards in turn
        self._places: list[list[_Load | None]] = [[None] * plan.prompts for _ in range(P)]
        self._seats: dict[tuple[int, int], tuple[_Load, int]] = {}  # of living rows, by lane and row: what they draw
        self.tokens_PGS = np.zeros((P, G, plan.suffix), np.int32)
        self.logps_PGS = np.zeros((P, G, plan.suffix), np.float32)
        self.live_PG = np.zeros((P, G), bool)
        self.place_PG, self.prompt_PG, self.first_PG, self.length_PG = (np.zeros((P, G), np.int32) for _ in range(4))
        self.sequence_PG = np.zeros((P, G), np.uint32)

    @property
    def busy(self) -> bool:
        """Whether a sample is left to draw."""
        return bool(self._waiting or self.live_PG.any() or any(load for loads in self._places for load in loads))

    def refill(self) -> list[tuple[int, int, Request]]:
        """Gives all rows samples as far as there are any; the prompts that lanes were given for it: (lane, place, request)."""
        P, G = self.live_PG.shape
        given = []
        # How many free rows a lane has that the prompts it holds have no sample for.
        wanted_P = G - self.live_PG.sum(axis=1) - [sum(len(load.waiting) for load in loads if load) for loads in self._places]
        wanted_P[[None not in loads for loads in self._places]] = 0
        while self._waiting and wanted_P.max() > 0:
            lane = int(self._lanes[wanted_P[self._lanes].argmax()])
            place = self._places[lane].index(None)
            request, samples = self._waiting.popleft()
            # In the end a prompt's samples are spread over lanes, so that all are done at about the same time.
            count = max(G, self._left // (2 * P)) if P > 1 else len(samples)
            if samples[count:]:
                self._waiting.appendleft((request, samples[count:]))
            self._places[lane][place] = _Load(request, place, collections.deque(samples[:count]))
            self._left -= len(samples[:count])
            wanted_P[lane] -= len(samples[:count])
            if None not in self._places[lane]:
                wanted_P[lane] = 0
            given.append((lane, place, request))
        self._seat()
        return given

    def _seat(self) -> None:
        """Has free rows begin samples, of the prompt with the fewest left first: so it ends, and makes room for another."""
        for lane in np.flatnonzero(~self.live_PG.all(axis=1)).tolist():
            loads = sorted((load for load in self._places[lane] if load and load.waiting), key=lambda load: len(load.waiting))
            begins = ((load, load.waiting.popleft()) for load in loads for _ in range(len(load.waiting)))
            for row, (load, index) in zip(np.flatnonzero(~self.live_PG[lane]).tolist(), begins, strict=False):
                load.running += 1
                self._seats[lane, row] = load, index
                self.live_PG[lane, row] = True
                self.place_PG[lane, row], self.length_PG[lane, row] = load.place, 0
                self.prompt_PG[lane, row], self.first_PG[lane, row] = len(load.request.prompt) - 1, load.request.prompt[-1]
                self.sequence_PG[lane, row] = load.request.sequence + index

    def end(self, lane: int, row: int) -> tuple[Request, int]:
        """Frees a row; the request and the index of the sample that it drew."""
        load, index = self._seats.pop((lane, row))
        load.running -= 1
        if not load.running and not load.waiting:
            self._places[lane][load.place] = None
        self.live_PG[lane, row] = False
        self.length_PG[lane, row] = 0
        return load.request, index

    def add(self, tokens_PGN: np.ndarray, logps_PGN: np.ndarray) -> None:
        """Takes a burst's tokens."""
        lane, row = np.nonzero(self.live_PG)
        at = lane[:, None], row[:, None], self.length_PG[lane, row][:, None] + np.arange(tokens_PGN.shape[-1])
        self.tokens_PGS[at], self.logps_PGS[at] = tokens_PGN[lane, row], logps_PGN[lane, row]
        self.length_PG[lane, row] += tokens_PGN.shape[-1]

    def rows(self) -> Rows:
        """Where each row stands now."""
        # Copies: the dispatch is asynchronous, and the host goes on to change its arrays.
        arrays = self.place_PG, self.prompt_PG, self.first_PG, self.length_PG, self.sequence_PG
        return Rows(*(array.copy() for array in arrays))  # type: ignore[arg-type]


def lane_shape(rows: int, prompts: int, samples: int) -> tuple[int, int, int]:
    """(lanes, rows of each, prompts that each holds) of a data shard that has so many rows for so many prompts' samples.

    Where all samples have a row, a lane is one prompt. Where they stream, a lane needs enough samples to begin while the longest of
    another prompt still run: with 3 G or more of them nearly no row waits (`benchmarks/rows.py` shows it for skewed lengths).
    """
    if prompts * samples <= rows:
        return prompts, samples, 1
    group = max(range(1, min(samples, rows, GROUP) + 1), key=lambda group: (rows // group * group, group))  # that leaves the fewest over
    lanes = rows // group
    return min(lanes, prompts * -(-samples // group)), group, min(samples, 4, 1 - (-3 * group // samples))


def prompt_bucket(tokens: int) -> int:
    """Padded prompt length: the next of 32, 48, 64, 96, 128, 192, 256, 384, 512, … (2^i and 1.5·2^i), so at most a third is padding."""
    sizes = (size for i in itertools.count(5) for size in (2**i, 3 * 2 ** (i - 1)))
    return next(size for size in sizes if size >= tokens)


def shared_tokens(prompts: Sequence[tuple[int, ...]] | Sequence[list[int]]) -> int:
    """How many leading tokens these prompts should share: those they have in common, less each one's last two, in whole blocks.

    The last token isn't prefilled, and one before it has to be left for the prompt's own prefill.
    """
    common = min(common_tokens(prompts), *(len(prompt) - 2 for prompt in prompts))
    return common // SHARED_BLOCK * SHARED_BLOCK if len(prompts) > 1 else 0


def _live_slots(plan: Plan, needed: int) -> int:
    """Suffix slots to read: all of a short suffix; of a long one, doubling numbers of blocks. A kernel reads each row as far as it goes."""
    if plan.attention == "pallas":
        return plan.suffix
    live = SUFFIX_BLOCK
    while live < needed:
        live *= 2
    return min(live, plan.suffix)
