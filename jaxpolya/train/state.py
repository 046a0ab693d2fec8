"""Parameters, optimizer state, and one optimizer step over any number of micro-batches.

Losses are (sum, count) pairs until the last moment. A step adds up the gradients of the micro-batches' *sums* and divides once
by the global count: accumulation, packing and sharding all give the same number. Accumulating and updating are two programs,
so that a round of rollouts may fill any number of micro-batches without compiling anew; a batch that is one micro-batch has a program
of its own, which holds one gradient where adding takes two. What a step measured stays on the device until it is asked for.

The state is a plain tree, {"params", "opt"}; the schedule's step is the optimizer's own count, so that a restored state knows
where it is. Where the decoder has adapters, the state's parameters are those alone (`models.lora`): the frozen ones have neither gradient
nor moments, are never written, and go to the programs beside the state.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxpolya.config import Optimizer
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.models.lora import divided, joined
from jaxpolya.parallel.mesh import batch_to_mesh, to_host
from jaxpolya.parallel.sharding import batch_sharding, param_shardings, replicated
from jaxpolya.train.losses import Mean

State = dict[str, Any]
Means = dict[str, Mean]
Maxima = dict[str, jax.Array]
LossFn = Callable[[Params, dict[str, jax.Array]], tuple[Means, Maxima]]
"""(params, one micro-batch of arrays [B, T]) → means, `loss` among them, and maxima."""


@functools.cache
def make_schedule(config: Optimizer, steps: int) -> optax.Schedule:
    """Updates done → learning rate of the next one: linear warm-up, then cosine decay."""
    warmup = round(config.warmup * steps)
    return optax.warmup_cosine_decay_schedule(
        # The first update already moves: step 0 of a warm-up from zero would be wasted.
        init_value=config.learning_rate / (warmup + 1),
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=config.learning_rate * config.final,
    )


def rate_after(config: Optimizer, steps: int, done: int) -> float:
    """The learning rate of the update after `done` of `steps`; 0 before the first of them, while nothing is updated yet."""
    return float(make_schedule(config, steps)(done)) if done >= 0 else 0.0


@functools.cache
def make_optimizer(config: Optimizer, decoder: DecoderConfig, steps: int) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) of a decoder's parameters, or some of them, with global-norm clipping and `make_schedule`; norms and biases
    don't decay (`ParamSpec.decays`)."""

    def decays(params: Params) -> Any:
        specs = abstract_params(decoder)

        def of(path: Any, _: jax.Array) -> Any:
            spec: Any = functools.reduce(lambda tree, key: tree[key.key], path, specs)
            return spec.decays

        return jax.tree.map_with_path(of, params)  # an optimizer may see a part of the tree, with holes that have no leaves

    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(make_schedule(config, steps), b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=decays),
    )


def state_shardings(config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation) -> State:
    """Where each array of the state lies: Adam's moments with their parameters, scalars everywhere."""
    params, _ = _shardings(config, mesh)
    opt = optax.tree.map_params(
        optimizer,
        lambda leaf, sharding: leaf if isinstance(leaf, optax.MaskedNode) else sharding,
        jax.eval_shape(optimizer.init, _shapes(config)),
        params,
        transform_non_params=lambda _: replicated(mesh),
        is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
    )
    return {"params": params, "opt": opt}


def _shapes(config: DecoderConfig) -> Params:
    """Shapes and dtypes of the trained parameters."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), divided(abstract_params(config), config)[0])


def _shardings(config: DecoderConfig, mesh: Mesh) -> tuple[Params, Params]:
    """Where the trained and the frozen parameters lie."""
    return divided(param_shardings(mesh, abstract_params(config), "train"), config)


def init_state(params: Params, config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation) -> State:
    """A fresh state around the trained parameters, which are donated."""
    shardings = state_shardings(config, mesh, optimizer)
    return jax.jit(lambda p: {"params": p, "opt": optimizer.init(p)}, donate_argnums=0, out_shardings=shardings)(params)


def abstract_state(config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation) -> State:
    """Shapes, dtypes and shardings of the state, for restoring."""
    shapes = {"params": _shapes(config), "opt": jax.eval_shape(optimizer.init, _shapes(config))}
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        state_shardings(config, mesh, optimizer),
    )


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one or several updates measured, not divided yet."""

    means: Means
    maxima: dict[str, float]
    totals: dict[str, float]
    """What only adds up, such as `tokens`."""

    @classmethod
    def of(cls, updates: "Sequence[Measured]") -> "Measured":
        """Several updates as one: a mean is one over all that any of them counted, a maximum the largest of theirs."""

        def joined(parts: Sequence[Mapping[str, Any]], join: Callable[[list[Any]], Any]) -> dict[str, Any]:
            return {name: join([part[name] for part in parts]) for name in parts[0]}

        means = joined([update.means for update in updates], lambda each: Mean(sum(m.sum for m in each), sum(m.count for m in each)))
        return cls(means, joined([update.maxima for update in updates], max), joined([update.totals for update in updates], sum))

    @property
    def facts(self) -> dict[str, float]:
        """Every metric as a number."""
        return {name: float(mean.value) for name, mean in self.means.items()} | self.maxima | self.totals


@dataclasses.dataclass(frozen=True)
class Pending:
    """What an update measures, on the device, which may still be at it."""

    means: Means
    maxima: Maxima

    def measured(self) -> Measured:
        """Waits for the update; alike on all hosts."""
        means, maxima = jax.tree.map(float, to_host((self.means, self.maxima)))
        tokens = means.pop("tokens").sum
        return Measured(means, maxima, {"tokens": tokens})


class Step:
    """One update from any number of micro-batches; the programs are compiled once for equal arguments."""

    def __init__(
        self,
        loss_fn: LossFn,
        config: DecoderConfig,
        mesh: Mesh,
        optimizer: optax.GradientTransformation,
        frozen: Params | None = None,
    ):
        """`frozen` are the parameters that the state doesn't hold, where the decoder has adapters."""
        self._gradient, self._accumulate = _gradient(loss_fn, config, mesh), _accumulate(loss_fn, config, mesh)
        self._update, self._zeros = _update(config, mesh, optimizer), _zeros(config, mesh)
        self._mesh, self._frozen = mesh, frozen or {}

    def weights(self, state: State) -> Params:
        """All parameters under a state, as a forward pass takes them; no array is copied."""
        return joined(state["params"], self._frozen)

    def __call__(self, state: State, batch: Mapping[str, np.ndarray], micro_rows: int) -> tuple[State, dict[str, float]]:
        """(the state after one update, metrics as floats, alike on all hosts); arguments as `dispatch`."""
        state, pending = self.dispatch(state, batch, micro_rows)
        return state, pending.measured().facts

    def dispatch(self, state: State, batch: Mapping[str, np.ndarray], micro_rows: int) -> tuple[State, Pending]:
        """(the state after one update, what it measures); neither is waited for.

        Args:
          state: is donated.
          batch: arrays [R, T] that every host holds, R a multiple of `micro_rows`.
          micro_rows: B, rows of one forward and backward pass.
        """
        with jax.set_mesh(self._mesh):  # `parallel.sharding.constrain` reads it while tracing
            total, means, maxima = self._gradients(state, batch, micro_rows)
            state, norm = self._update(state, total, means["loss"].count)
        means["grad_norm"] = Mean(norm, jnp.ones_like(norm))  # each update has one
        return state, Pending(means, maxima)

    def _gradients(self, state: State, batch: Mapping[str, np.ndarray], micro_rows: int) -> tuple[Params, Means, Maxima]:
        """(gradient of the sum, means, maxima) over a batch."""
        rows = len(next(iter(batch.values())))
        if rows == micro_rows:
            return self._gradient(state["params"], self._frozen, batch_to_mesh(batch, self._mesh))
        total, means, maxima = self._zeros(), Means(), Maxima()
        for start in range(0, rows, micro_rows):
            micro = batch_to_mesh({name: array[start : start + micro_rows] for name, array in batch.items()}, self._mesh)
            total, more_means, more_maxima = self._accumulate(state["params"], self._frozen, total, micro)
            means = jax.tree.map(jnp.add, means, more_means) if means else more_means
            maxima = jax.tree.map(jnp.maximum, maxima, more_maxima) if maxima else more_maxima
        return total, means, maxima

    def glance(self, state: State, batch: Mapping[str, np.ndarray], micro_rows: int) -> dict[str, float]:
        """The means over a batch's first micro-batch under a state, which stays as it is; no program is compiled for it."""
        with jax.set_mesh(self._mesh):
            micro = batch_to_mesh({name: array[:micro_rows] for name, array in batch.items()}, self._mesh)
            if len(next(iter(batch.values()))) == micro_rows:
                _, means, _ = self._gradient(state["params"], self._frozen, micro)
            else:
                _, means, _ = self._accumulate(state["params"], self._frozen, self._zeros(), micro)
        return {name: float(mean.value) for name, mean in jax.tree.map(float, to_host(means)).items()}


@functools.cache
def _zeros(config: DecoderConfig, mesh: Mesh) -> Callable[[], Params]:
    """A program that allocates a gradient."""
    trained, _ = _shardings(config, mesh)
    return jax.jit(lambda: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), _shapes(config)), out_shardings=trained)


@functools.cache
def _gradient(loss_fn: LossFn, config: DecoderConfig, mesh: Mesh) -> Callable[..., tuple[Params, Means, Maxima]]:
    """A program (trained, frozen, micro-batch) → (gradient of the sum, means, maxima)."""
    trained_at, frozen_at = _shardings(config, mesh)
    whole = replicated(mesh)
    return jax.jit(
        functools.partial(_differentiate, loss_fn),
        in_shardings=(trained_at, frozen_at, batch_sharding(mesh)),
        out_shardings=(trained_at, whole, whole),
    )


@functools.cache
def _accumulate(loss_fn: LossFn, config: DecoderConfig, mesh: Mesh) -> Callable[..., tuple[Params, Means, Maxima]]:
    """A program (trained, frozen, gradient so far, micro-batch) → (gradient of the sum, means, maxima)."""
    trained_at, frozen_at = _shardings(config, mesh)

    def accumulate(trained: Params, frozen: Params, total: Params, batch: dict[str, jax.Array]) -> tuple[Params, Means, Maxima]:
        gradients, means, maxima = _differentiate(loss_fn, trained, frozen, batch)
        return jax.tree.map(jnp.add, total, gradients), means, maxima

    whole = replicated(mesh)
    return jax.jit(
        accumulate,
        donate_argnums=2,
        in_shardings=(trained_at, frozen_at, trained_at, batch_sharding(mesh)),
        out_shardings=(trained_at, whole, whole),
    )


def _differentiate(loss_fn: LossFn, trained: Params, frozen: Params, batch: dict[str, jax.Array]) -> tuple[Params, Means, Maxima]:
    def loss_sum(trained: Params) -> tuple[jax.Array, tuple[Means, Maxima]]:
        means, maxima = loss_fn(joined(trained, frozen), batch)
        return means["loss"].sum, (means, maxima)

    gradients, (means, maxima) = jax.grad(loss_sum, has_aux=True)(trained)
    return gradients, means, maxima


@functools.cache
def _update(config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation) -> Callable[..., tuple[State, jax.Array]]:
    """A program (state, summed gradient, count) → (state, norm of the mean gradient before clipping)."""
    shardings = state_shardings(config, mesh, optimizer)

    def update(state: State, total: Params, count: jax.Array) -> tuple[State, jax.Array]:
        gradients = jax.tree.map(lambda g: g / jnp.maximum(count, 1), total)
        updates, opt = optimizer.update(gradients, state["opt"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "opt": opt}, optax.global_norm(gradients)

    whole = replicated(mesh)
    return jax.jit(update, donate_argnums=0, in_shardings=(shardings, shardings["params"], whole), out_shardings=(shardings, whole))


def all_finite(params: Params) -> bool:
    """Whether no parameter is NaN or infinite; alike on all hosts."""
    return bool(to_host(_all_finite(params)))


@jax.jit
def _all_finite(params: Params) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def make_evaluation(loss_fn: LossFn, config: DecoderConfig, mesh: Mesh) -> Callable[[Params, dict[str, jax.Array]], Means]:
    """A program (params, one batch of arrays [B, T]) → means, without gradients. Called with the mesh in context."""
    shardings = param_shardings(mesh, abstract_params(config), "train")
    return jax.jit(
        lambda params, batch: loss_fn(params, batch)[0], in_shardings=(shardings, batch_sharding(mesh)), out_shardings=replicated(mesh)
    )
