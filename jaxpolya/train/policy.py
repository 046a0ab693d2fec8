"""The parameters' side of RL: what a stage begins with, and how a round is scored and learned from.

The old policy's log-probs are the sampler's record, or computed anew by the trainer before the first update; `sampler_kl` is how far apart
the two are. A reference, where one is needed, is the model that the arm's RL started from: a second copy of the parameters in the compute
dtype, spread over the mesh as they are; with adapters it is the frozen parameters, which are there.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import optax
from jax.sharding import Mesh

from jaxpolya.config import RlConfig, ValueConfig
from jaxpolya.data.packing import Batch, Example, token_example
from jaxpolya.data.sharing import pack_rows, unpack_rows
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params
from jaxpolya.models.forward import Forward
from jaxpolya.rollout.rounds import Round, members
from jaxpolya.score.logprobs import score_rows, scoring_copy
from jaxpolya.train.adapters import adapted, begin
from jaxpolya.train.algorithms import Algorithm, make_algorithm, needs_reference, policy_loss, value_head
from jaxpolya.train.checkpoints import Checkpoints
from jaxpolya.train.objectives import policy_objective
from jaxpolya.train.state import Measured, Pending, State, Step, abstract_state, init_state, make_optimizer, rate_after
from jaxpolya.train.value import fresh_head, policy_of, value_optimizer, with_head

Logps = dict[str, list[np.ndarray]]
"""A name → something of each response's tokens, float32, in the order of a round's samples."""


def begin_policy(
    config: RlConfig,
    decoder: DecoderConfig,
    start: Callable[[], Params],
    base: Callable[[], Params] | None,
    mesh: Mesh,
    dtype: Any,
    checkpoints: Checkpoints,
) -> tuple["Trainer", State]:
    """What a stage's steps are done with, and the state that they begin at: the newest checkpoint's, or a fresh one around `start()`."""
    algorithm, _ = make_algorithm(config)
    value = value_head(config, algorithm)
    decoder = adapted(decoder, config.lora)
    trained = decoder if value is None else with_head(decoder)
    optimizer, warming = _optimizers(config, value, trained)
    looks_back = "start" in config.drift or ("base" in config.drift and base is None)
    refers, done = needs_reference(config, algorithm) or looks_back, checkpoints.latest()
    state, reference, frozen = State(), None, Params()
    if refers or decoder.lora or not done:
        params = start()
        if refers and not decoder.lora:
            reference = scoring_copy(params, decoder, mesh, dtype)
        params, frozen = begin(params, decoder, mesh, dtype, config.seed, "rl")
        if refers and decoder.lora:
            reference = frozen  # adapters begin at nothing
        if not done:
            state = init_state(params | ({} if value is None else fresh_head(decoder)), trained, mesh, optimizer)
        del params
    if done:
        state = checkpoints.restore(done, abstract_state(trained, mesh, optimizer))
    watched = {} if reference is None else {"start": reference}
    if "base" in config.drift:
        watched["base"] = watched["start"] if base is None else scoring_copy(base(), decoder.base, mesh, dtype)

    forward = Forward(trained, dtype, temperature=config.sampling.temperature)
    remat = dataclasses.replace(forward, remat=config.batching.remat == "block")
    objective = policy_objective(remat, policy_loss(config, algorithm))
    step, warming_step = (Step(objective, trained, mesh, by, frozen) for by in (optimizer, warming))
    return Trainer(config, algorithm, value, decoder, forward, mesh, step, warming_step, watched), state


def _optimizers(
    config: RlConfig, value: ValueConfig | None, trained: DecoderConfig
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """(the optimizer, that of the steps in which a value head alone is trained)."""
    updates = config.updates * config.epochs
    if value is None:
        return (make_optimizer(config.optimizer, trained, config.steps * updates),) * 2
    one, other = (value_optimizer(config.optimizer, value, trained, config.steps, updates, warming=warming) for warming in (False, True))
    return one, other


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What all steps of a stage are done with; the state is handed from one to the next."""

    config: RlConfig
    algorithm: Algorithm
    value: ValueConfig | None
    decoder: DecoderConfig
    """With adapters where they are trained, without a value head."""
    forward: Forward
    """Of all that is trained, the value head too."""
    mesh: Mesh
    updating: Step
    warming: Step
    """The update of the first steps, where a value head is warmed up."""
    watched: Mapping[str, Params]
    """The models that the policy is compared with, without adapters, in the compute dtype: `start` and `base`, where they are asked for."""

    def policy(self, state: State) -> Params:
        """The policy's parameters under a state, without a value head; the same arrays, which the next update consumes."""
        return policy_of(self.updating.weights(state))

    def score(self, round_: Round, state: State) -> tuple[Logps, Logps]:
        """(what the round is learned with beside its sampler's record: `logp_ref`, `logp_old` and `value_old`, each where it is needed; the
        log-probs under each model of `watched`)."""
        of_models = {name: self._scored(params, self.decoder.base, round_) for name, params in self.watched.items()}
        logps = {"logp_ref": of_models["start"]} if needs_reference(self.config, self.algorithm) else {}
        if self.config.old_logprobs == "trainer":
            logps["logp_old"] = self._scored(self.policy(state), self.decoder, round_)
        if self.value is not None:
            logps["value_old"] = self._scored(self.updating.weights(state), self.forward.config, round_, "values")
        return logps, of_models

    def _scored(
        self, params: Params, decoder: DecoderConfig, round_: Round, what: Literal["logprobs", "values"] = "logprobs"
    ) -> list[np.ndarray]:
        """Log-probs (or values) of each response's tokens under `params`, float32, in the order of the samples.

        Computed on the updates' own batches: the same rows of the same shapes are rounded alike.
        """
        samples, prompts, forward = round_.samples, round_.prompts, dataclasses.replace(self.forward, config=decoder)
        by_place: dict[int, np.ndarray] = {}
        for places in self._parts:
            bare = [token_example(prompts[i // self.config.group].ids, samples[i].token_ids) for i in places]
            values_RT = score_rows(params, forward, self.mesh, self._packed(bare), self.config.batching.micro_rows, what)
            by_place |= dict(zip(places, self._responses(values_RT, bare), strict=True))
        return [by_place[i] for i in range(len(samples))]

    def update(self, state: State, examples: Sequence[Example], step: int) -> tuple[State, dict[str, float]]:
        """(the state after all updates of a round, what they measured). The state is consumed."""
        by = self.warming if self.value and step < self.value.warmup else self.updating
        running: list[Pending] = []
        for places in self._parts * self.config.epochs:
            state, pending = by.dispatch(state, self._packed([examples[i] for i in places]), self.config.batching.micro_rows)
            running.append(pending)
        updates = [pending.measured() for pending in running]
        facts = Measured.of(updates).facts
        # The first update measures before it moves: what is between trainer and sampler there is no learning.
        return state, facts | {"kl": facts["kl_k3"], "sampler_kl": updates[0].facts["sampler_kl"]}

    def glance(self, state: State, examples: Sequence[Example]) -> dict[str, float]:
        """The means over a micro-batch of the round's last update under a state, which stays as it is."""
        return self.updating.glance(state, self._packed([examples[i] for i in self._parts[-1]]), self.config.batching.micro_rows)

    def rate(self, step: int) -> float:
        """The policy's learning rate in a step's first update."""
        still = 0 if self.value is None else self.value.warmup  # steps in which the policy doesn't move
        updates = self.config.updates * self.config.epochs
        return rate_after(self.config.optimizer, (self.config.steps - still) * updates, (step - still) * updates)

    @property
    def _parts(self) -> list[list[int]]:
        """The samples of each update of a pass, by their places in the round: its groups, split evenly."""
        return [members(part, self.config.group) for part in np.array_split(np.arange(self.config.prompts), self.config.updates)]

    def _packed(self, examples: Sequence[Example]) -> Batch:
        """An update's rows."""
        batching = self.config.batching
        return pack_rows(examples, self._sharing, row_tokens=batching.row_tokens, rows_multiple=batching.micro_rows)

    def _responses(self, values_RT: np.ndarray, examples: Sequence[Example]) -> list[np.ndarray]:
        """Of values on the rows that `_packed` makes of these examples, those of each one's response."""
        unpacked = unpack_rows(values_RT, examples, self._sharing)
        return [values[example.prompt :] for values, example in zip(unpacked, examples, strict=True)]

    @property
    def _sharing(self) -> int | None:
        """How many examples share a prompt in rows, if they do."""
        return self.config.group if self.config.share_prompts else None
