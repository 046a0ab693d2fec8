"""Parameters, optimizer state, and one optimizer step over any number of micro-batches.

Losses are (sum, count) pairs until the last moment. A step scans its micro-batches, adds the gradients of the *sums*, and
divides once by the global count: accumulation, packing and sharding all give the same number.

The state is a plain tree, {"params", "opt"}; the schedule's step is the optimizer's own count, so that a restored state knows
where it is.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxpolya.config import Optimizer
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params
from jaxpolya.parallel.sharding import DATA, param_shardings, replicated
from jaxpolya.train.losses import Mean

State = dict[str, Any]
Means = dict[str, Mean]
Maxima = dict[str, jax.Array]
LossFn = Callable[[Params, dict[str, jax.Array]], tuple[Means, Maxima]]
"""(params, one micro-batch of arrays [B, T]) → means, `loss` among them, and maxima."""


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) with global-norm clipping, linear warm-up and cosine decay; norms and biases don't decay."""
    warmup = round(config.warmup * steps)
    schedule = optax.warmup_cosine_decay_schedule(
        # The first update already moves: step 0 of a warm-up from zero would be wasted.
        init_value=config.learning_rate / (warmup + 1),
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=config.learning_rate * config.final,
    )
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=_matrices),
    )


def _matrices(params: Params) -> Any:
    """True for weights, False for norms and biases: a layer's own dimensions are those beyond the stacked axis."""
    blocks = {name: leaf.ndim > 2 and not name.endswith("_bias") for name, leaf in params["blocks"].items()}
    return {name: leaf.ndim > 1 for name, leaf in params.items() if name != "blocks"} | {"blocks": blocks}


def state_shardings(config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation) -> State:
    """Where each array of the state lies: Adam's moments with their parameters, scalars everywhere."""
    params = param_shardings(mesh, abstract_params(config), "train")
    abstract = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), abstract_params(config))
    opt = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, abstract),
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    return {"params": params, "opt": opt}


def init_state(params: Params, config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation) -> State:
    """A fresh state around a copy of `params`, which stay usable: the copy is what steps donate."""
    shardings = state_shardings(config, mesh, optimizer)
    init = jax.jit(lambda p: {"params": jax.tree.map(jnp.copy, p), "opt": optimizer.init(p)}, out_shardings=shardings)
    return init(params)


def abstract_state(config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation) -> State:
    """Shapes, dtypes and shardings of the state, for restoring."""
    abstract = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), abstract_params(config))
    shapes = {"params": abstract, "opt": jax.eval_shape(optimizer.init, abstract)}
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        state_shardings(config, mesh, optimizer),
    )


def make_step(
    loss_fn: LossFn, config: DecoderConfig, mesh: Mesh, optimizer: optax.GradientTransformation
) -> Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]:
    """A program (state, batch of arrays [M, B, T]) → (state, metrics): one update from M micro-batches. The state is donated."""
    shardings = state_shardings(config, mesh, optimizer)

    def micro(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, tuple[Means, Maxima]]:
        means, maxima = loss_fn(params, batch)
        return means["loss"].sum, (means, maxima)

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        params = state["params"]

        def accumulate(total: tuple[Params, Means, Maxima], batch: dict[str, jax.Array]) -> tuple[tuple[Params, Means, Maxima], None]:
            gradients, (means, maxima) = jax.grad(micro, has_aux=True)(params, batch)
            return (
                jax.tree.map(jnp.add, total[0], gradients),
                jax.tree.map(jnp.add, total[1], means),
                jax.tree.map(jnp.maximum, total[2], maxima),
            ), None

        aux = jax.eval_shape(lambda b: micro(params, b)[1], jax.tree.map(lambda x: x[0], batch))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, *aux))
        zeros = (jax.lax.with_sharding_constraint(zeros[0], shardings["params"]), *zeros[1:])
        (gradients, means, maxima), _ = jax.lax.scan(accumulate, zeros, batch)
        gradients = jax.tree.map(lambda g: g / jnp.maximum(means["loss"].count, 1), gradients)
        updates, opt = optimizer.update(gradients, state["opt"], params)
        metrics = {name: mean.value for name, mean in means.items()} | maxima
        metrics |= {"tokens": means["tokens"].sum, "grad_norm": optax.global_norm(gradients)}
        return {"params": optax.apply_updates(params, updates), "opt": opt}, metrics

    batch_sharding = NamedSharding(mesh, PartitionSpec(None, DATA))
    jitted = jax.jit(step, donate_argnums=0, in_shardings=(shardings, batch_sharding), out_shardings=(shardings, replicated(mesh)))
    return _in_mesh(jitted, mesh)


def make_evaluation(loss_fn: LossFn, config: DecoderConfig, mesh: Mesh) -> Callable[[Params, dict[str, jax.Array]], Means]:
    """A program (params, one batch of arrays [B, T]) → means, without gradients."""
    shardings = param_shardings(mesh, abstract_params(config), "train")
    batch_sharding = NamedSharding(mesh, PartitionSpec(DATA))
    jitted = jax.jit(
        lambda params, batch: loss_fn(params, batch)[0], in_shardings=(shardings, batch_sharding), out_shardings=replicated(mesh)
    )
    return _in_mesh(jitted, mesh)


def _in_mesh(jitted: Any, mesh: Mesh) -> Any:
    """The program with the mesh in context, which `parallel.sharding.constrain` reads while tracing."""

    @functools.wraps(jitted)
    def call(*args: Any) -> Any:
        with jax.set_mesh(mesh):
            return jitted(*args)

    return call


def micro_batches(batch: dict[str, Any], micro_rows: int) -> dict[str, Any]:
    """Arrays [R, T] as [M, B, T], with B = `micro_rows` and R a multiple of it."""
    return {name: array.reshape(-1, micro_rows, *array.shape[1:]) for name, array in batch.items()}
