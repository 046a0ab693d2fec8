"""The engine: keeps lanes full and hands finished responses on while others still run.

The host's loop is: refill free lanes, send a burst off, hand on what the burst before it finished, wait for the burst, see which rows
ended. So texts are made, judged and written while the device computes. Nothing but token ids and log-probs comes back from the device,
whole on every host, and every decision follows from them, so that all hosts decide alike.

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
from jaxpolya.decode.burst import SUFFIX_BLOCK, make_burst
from jaxpolya.decode.lanes import Cache, Plan, Rows, decode_copy, make_empty
from jaxpolya.decode.prefill import make_prefill, make_share
from jaxpolya.decode.sampling import Draw
from jaxpolya.errors import InputError, not_finite
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.parallel.mesh import batch_to_mesh, data_shards, to_host
from jaxpolya.records import Finish

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
          samples: samples per prompt; they share a prefix as far as `engine.rows` allows.
          longest_prompt: tokens.
          stop_ids: token ids that end a response.
          decode: token ids → text, control tokens by their names: stop strings may be such, and the verifier has to see them.
          engine: batch rows and length of a burst.
          dtype: compute and cache dtype.
          model: its name in errors.

        Raises:
          InputError: the prompt and response don't fit the model's positions.
        """
        if longest_prompt + sampling.max_new_tokens > config.context:
            raise InputError(
                f"a prompt of {longest_prompt} tokens and max_new_tokens {sampling.max_new_tokens} exceed the model's "
                f"{config.context} positions; lower sampling.max_prompt_tokens or sampling.max_new_tokens"
            )
        shards = data_shards(mesh)
        group = min(samples, max(1, engine.rows // shards))
        burst = min(engine.burst, sampling.max_new_tokens)
        self.mesh, self.sampling, self.stop_ids, self.decode = mesh, sampling, frozenset(stop_ids), decode
        self.model, self._config = model, config
        self.plan = Plan(
            config=config.base,
            lanes=min(max(1, engine.rows // group // shards), -(-prompts * -(-samples // group) // shards)) * shards,
            samples=group,
            prefix=prompt_bucket(longest_prompt - 1),
            suffix=-(-sampling.max_new_tokens // burst) * burst,
            burst=burst,
            draw=Draw(greedy=sampling.temperature == 0, top_k=sampling.top_k, top_p=sampling.top_p < 1),
            dtype=jnp.dtype(dtype),
        )
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
        waiting = collections.deque(self._lane_loads(requests))
        table, beginnings = _Table(plan, self._shards), _Beginnings(plan, self.mesh, weights)
        ended: list[_Ended] = []
        while waiting or table.busy:
            lanes = self._refill(weights, lanes, table, waiting, beginnings)
            burst = make_burst(plan, self.mesh, _live_slots(plan, int(table.length_PG[table.live_PG].max()) + plan.burst))
            lanes, tokens, logps = burst(weights, lanes, table.rows(), key, self._temperature, self._top_p)
            yield self._completions(ended)
            tokens_PGN, logps_PGN = to_host((tokens, logps))
            if not np.isfinite(logps_PGN[table.live_PG]).all():
                raise not_finite(self.model, "log-probs", plan.dtype)
            ended = self._collect(table, tokens_PGN, logps_PGN)
        yield self._completions(ended)

    def _lane_loads(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Sequence[int]]]:
        """Requests cut into what one lane holds."""
        G = self.plan.samples
        for request in requests:
            if not 1 <= len(request.prompt) <= self.plan.prefix + 1:
                raise InputError(f"prompt {request.id} has {len(request.prompt)} tokens; this engine takes 1 to {self.plan.prefix + 1}")
            for start in range(0, len(request.samples), G):
                yield request, request.samples[start : start + G]

    def _refill(
        self,
        weights: Params,
        lanes: Any,
        table: "_Table",
        waiting: collections.deque[tuple[Request, Sequence[int]]],
        beginnings: "_Beginnings",
    ) -> Any:
        """Prefills waiting prompts into free lanes, one prompt a data shard at a time.

        The batch is always that large, so that a prompt's arithmetic does not depend on how many lanes were free.
        """
        plan, shards = self.plan, self._shards
        prefill = make_prefill(plan, self.mesh)
        alike: dict[tuple[tuple[int, ...], int], list[list[tuple[int, Sequence[int]]]]] = {}
        for lane in table.free_lanes():
            if not waiting:
                break
            request, indices = waiting.popleft()
            table.admit(lane, request, indices)
            beginning, rest = tuple(request.prompt[: request.shared]), request.prompt[request.shared :]
            bucket = min(prompt_bucket(len(rest) - 1), plan.prefix - request.shared)
            shard, local = divmod(lane, plan.lanes // shards)
            alike.setdefault((beginning, bucket), [[] for _ in range(shards)])[shard].append((local, rest))
        for (beginning, bucket), loads in alike.items():
            for batch in itertools.zip_longest(*loads):
                tokens_RT = np.zeros((shards, bucket), np.int32)
                last_R, lane_R = np.zeros(shards, np.int32), np.full(shards, -1, np.int32)
                for shard, load in enumerate(batch):
                    if load is not None:
                        lane_R[shard], rest = load
                        tokens_RT[shard, : len(rest) - 1], last_R[shard] = rest[:-1], rest[-1]
                lanes = prefill(weights, lanes, beginnings.cache(beginning), *batch_to_mesh((tokens_RT, last_R, lane_R), self.mesh))
        return lanes

    def _collect(self, table: "_Table", tokens_PGN: np.ndarray, logps_PGN: np.ndarray) -> "list[_Ended]":
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
            request, indices = table.loads[lane]
            ended.append(_Ended(request, indices[row], tokens, logps, finish, text, length if stop is None else stop))
            table.live_PG[lane, row] = False
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


class _Table:
    """The host's view of the rows: who sits where and how far they are."""

    def __init__(self, plan: Plan, shards: int):
        P, G = plan.lanes, plan.samples
        self._shards = shards
        self.loads: list[tuple[Request, Sequence[int]]] = [(Request("", (), 0, ()), ())] * P  # what each lane holds, its samples row by row
        self.tokens_PGS = np.zeros((P, G, plan.suffix), np.int32)
        self.logps_PGS = np.zeros((P, G, plan.suffix), np.float32)
        self.prompt_P = np.zeros(P, np.int32)
        self.length_PG = np.zeros((P, G), np.int32)
        self.sequence_PG = np.zeros((P, G), np.uint32)
        self.live_PG = np.zeros((P, G), bool)

    @property
    def busy(self) -> bool:
        return bool(self.live_PG.any())

    def free_lanes(self) -> list[int]:
        """Lanes without a living row, the data shards in turn."""
        free_SP = ~self.live_PG.any(axis=1).reshape(self._shards, -1)
        return [int(shard * free_SP.shape[1] + local) for local, shard in np.argwhere(free_SP.T)]

    def admit(self, lane: int, request: Request, indices: Sequence[int]) -> None:
        self.loads[lane] = (request, indices)
        self.prompt_P[lane] = len(request.prompt) - 1
        self.length_PG[lane] = 0
        self.live_PG[lane] = np.arange(self.live_PG.shape[1]) < len(indices)
        self.sequence_PG[lane, : len(indices)] = [request.sequence + index for index in indices]

    def add(self, tokens_PGN: np.ndarray, logps_PGN: np.ndarray) -> None:
        """Takes a burst's tokens. All rows of a lane are as long, those that ended included."""
        N = tokens_PGN.shape[-1]
        for lane in np.flatnonzero(self.live_PG.any(axis=1)):
            start = self.length_PG[lane, 0]
            self.tokens_PGS[lane, :, start : start + N] = tokens_PGN[lane]
            self.logps_PGS[lane, :, start : start + N] = logps_PGN[lane]
        self.length_PG += N

    def rows(self) -> Rows:
        # Copies: the dispatch is asynchronous, and the host goes on to change its arrays.
        return Rows(prompt_P=self.prompt_P.copy(), length_PG=self.length_PG.copy(), sequence_PG=self.sequence_PG.copy())  # type: ignore[arg-type]


def prompt_bucket(tokens: int) -> int:
    """Padded prompt length: the next of 32, 48, 64, 96, 128, 192, 256, 384, 512, … (2^i and 1.5·2^i), so at most a third is padding."""
    sizes = (size for i in itertools.count(5) for size in (2**i, 3 * 2 ** (i - 1)))
    return next(size for size in sizes if size >= tokens)


def shared_tokens(prompts: Sequence[tuple[int, ...]] | Sequence[list[int]]) -> int:
    """How many leading tokens these prompts should share: those they have in common, less each one's last, in whole blocks."""
    first, last = min(prompts), max(prompts)
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    common = min(common, *(len(prompt) - 1 for prompt in prompts))
    return common // SHARED_BLOCK * SHARED_BLOCK if len(prompts) > 1 else 0


def _live_slots(plan: Plan, needed: int) -> int:
    """Suffix slots to read: all of a short suffix; of a long one, doubling numbers of blocks."""
    live = SUFFIX_BLOCK
    while live < needed:
        live *= 2
    return min(live, plan.suffix)
