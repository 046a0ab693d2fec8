"""How a training with adapters begins: fresh ones beside a frozen model.

The frozen parameters are held in the compute dtype, which is what a forward pass makes of them anyway, so no product is another one than it
would be with float32 beside it. Adapters are float32. A stage that begins at a model with adapters begins at their sum: the merged weights
are its base, which is the reference of a divergence too, and its own adapters begin at nothing.
"""

import dataclasses
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from jaxpolya.config import LoraConfig
from jaxpolya.models.config import TARGETS, DecoderConfig, Lora
from jaxpolya.models.decoder import Params, ParamSpec, abstract_params, init_params
from jaxpolya.models.lora import divided
from jaxpolya.parallel.sharding import param_shardings


def adapted(decoder: DecoderConfig, config: LoraConfig | None) -> DecoderConfig:
    """The decoder with the adapters that a stage asks for."""
    if config is None:
        return decoder
    named = None if config.targets == "all-linear" else {name.removesuffix("_proj") for name in config.targets}
    targets = tuple(name for name in TARGETS if named is None or name in named)
    return dataclasses.replace(decoder, lora=Lora(config.rank, config.alpha, targets, config.rslora))


def begin(params: Params, decoder: DecoderConfig, mesh: Mesh, dtype: Any, seed: int, stage: Literal["sft", "rl"]) -> tuple[Params, Params]:
    """(the parameters that are trained, the frozen ones) of a training.

    Args:
      params: of the model without adapters; they are consumed.
      decoder: with the adapters, if it has any; without, all of `params` is trained.
      mesh: where they are.
      dtype: compute dtype.
      seed: of the adapters.
      stage: which training; the adapters of two begin differently under one seed.
    """
    if decoder.lora is None:
        return params, {}
    shardings, _ = divided(param_shardings(mesh, abstract_params(decoder), "train"), decoder)
    key = jax.random.fold_in(jax.random.key(seed), ("sft", "rl").index(stage))
    fresh = jax.jit(lambda: divided(init_params(decoder, key), decoder)[0], out_shardings=shardings)()
    return fresh, _frozen(params, decoder, dtype)


def _frozen(params: Params, decoder: DecoderConfig, dtype: Any) -> Params:
    """The parameters as a forward pass reads them: norms as they are, all else in `dtype`. One is cast, and freed, after the other."""

    def freeze(spec: ParamSpec, leaf: jax.Array) -> jax.Array:
        if spec.keeps_float32 or leaf.dtype == dtype:
            return leaf
        frozen = jax.block_until_ready(spec.cast(leaf, dtype))
        leaf.delete()
        return frozen

    return jax.tree.map(freeze, abstract_params(decoder.base), params)
