"""A random model of transformers for every registered family, plainly and with all that its configuration knows switched on.

The list comes from the registry: a family that is added is tested by being there.
"""

import zlib

import torch
import transformers
from transformers import CONFIG_MAPPING

from jaxpolya.hf.families import FAMILIES, known_keys

V = 300
SIZES = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
ODD = {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 4}
WINDOW = 7
EVERYTHING = "tied, odd heads, all it knows"

ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
}  # fmt: skip


def with_rope(family, kind):
    """A family's configuration with stretched rotary frequencies; Gemma 3 and OLMo 3 stretch only those of their global layers."""
    full, windowed = {"gemma3_text": (1e4, 1e3), "olmo3": (5e5, 5e5)}.get(family, (1e4, None))
    rope = {"rope_theta": full, **ROPES[kind]}
    if windowed is None:
        return {"rope_parameters": rope}
    return {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": windowed}, "full_attention": rope}}


def cases(family):
    """(name, what is set beside `SIZES`): each family plainly, and with all that its configuration knows, tied and not."""
    known = known_keys(family)
    special = {"attention_bias": True, "mlp_bias": True, "query_pre_attn_scalar": 11, "final_logit_softcapping": 3.0}
    special |= {"attn_logit_softcapping": None if family == "gemma3_text" else 2.0, "no_rope_layers": [1, 0, 1]}
    special |= {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1}
    special |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "rms_norm_eps": 1e-4}
    everything = ODD | {key: value for key, value in special.items() if key in known}
    yield "untied", {"tie_word_embeddings": False}
    yield EVERYTHING, {"tie_word_embeddings": True, **everything}
    yield from ((f"{kind} rope", {**with_rope(family, kind), "tie_word_embeddings": False}) for kind in ROPES if kind != "linear")


CASES = {f"{family}: {name}": (family, settings) for family in FAMILIES for name, settings in cases(family)}
CASES["llama: linear rope"] = ("llama", with_rope("llama", "linear"))
CASES["llama: one key/value head, wide heads, gelu"] = ("llama", {"num_key_value_heads": 1, "head_dim": 24, "hidden_act": "gelu"})
CASES["qwen2: the last layer windowed"] = (
    "qwen2", {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 2}
)  # fmt: skip
CASES["smollm3: no windows, its own layers without positions"] = ("smollm3", {"no_rope_layer_interval": 2})
CASES["olmo3: a base for each kind of layers"] = (
    "olmo3",
    {
        "num_hidden_layers": 4,
        "sliding_window": WINDOW,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
            "full_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
)
CASES["gemma3_text: its own pattern of layers"] = ("gemma3_text", {"num_hidden_layers": 7, "sliding_window": WINDOW})


def their_model(case, auto=transformers.AutoModelForCausalLM, **also):
    """The model of a case, every parameter away from the zeros and ones that hide mistakes."""
    family, settings = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)  # other weights each time would now and then have two tokens of the same logit
        model = auto.from_config(CONFIG_MAPPING[family](**{**SIZES, **settings, **also}), attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(zlib.crc32(repr(settings).encode()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model
