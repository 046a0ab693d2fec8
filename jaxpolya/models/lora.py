"""Trees of parameters that have adapters: which part is trained, and the model that base and adapters are together.

Adapters are said where all of a block's parameters are, in `models.decoder.Block`: `q_lora_a` [L, r, D] and `q_lora_b` [L, N, H, r] lie
beside `q` [L, N, H, D], and so for every target. What the decoder without adapters has is frozen, everything else is trained. So a
training state holds the trained part alone, and the whole tree, which the forward pass takes, is put together of the two without a copy.
"""

import jax
import jax.numpy as jnp

from jaxpolya.models.config import DecoderConfig, Lora
from jaxpolya.models.decoder import Params, abstract_params


def divided(tree: Params, config: DecoderConfig) -> tuple[Params, Params]:
    """(the trained part, the frozen part) of a tree like the parameters'. Without adapters all of it is trained, and {} frozen."""
    if config.lora is None:
        return tree, {}
    base = abstract_params(config.base)
    trained = {name: leaf for name, leaf in tree.items() if name not in base}
    trained["blocks"] = {name: leaf for name, leaf in tree["blocks"].items() if name not in base["blocks"]}
    frozen = {name: tree[name] for name in base if name != "blocks"}
    return trained, {**frozen, "blocks": {name: tree["blocks"][name] for name in base["blocks"]}}


def joined(trained: Params, frozen: Params) -> Params:
    """The whole tree of the two parts."""
    return {**frozen, **trained, "blocks": {**frozen["blocks"], **trained["blocks"]}} if frozen else trained


def merged_layer(layer: Params, lora: Lora) -> Params:
    """A layer's parameters without adapters: each weight that has one is W + scale · B A, in float32; the others are as they are."""
    merged = {name: leaf for name, leaf in layer.items() if "_lora_" not in name}
    for name in lora.targets:
        a, b = layer[f"{name}_lora_a"], layer[f"{name}_lora_b"]
        merged[name] = layer[name].astype(jnp.float32) + lora.scale * jnp.tensordot(b, a, 1, precision=jax.lax.Precision.HIGHEST)
    return merged
