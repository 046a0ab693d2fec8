"""`export --verify`: transformers loads the written directory, and must get the logits of the parameters that were exported.

Whatever a user of the directory meets is on the other side of the comparison: their tokenizer, config.json, the tokens that end a
response, tensors under their names, and their forward pass. On our side are the parameters in memory, rounded as the files hold them, so
that the export's dtype is no excuse for a difference. What remains is the order of sums in float32, and the tolerance leaves room for no
more.

Every host calls the comparison, for all of them hold the parameters; the first one reads the directory and decides for all.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath
from jax.sharding import Mesh

from jaxpolya.errors import CheckError
from jaxpolya.hf.checkpoint import Checkpoint
from jaxpolya.hf.directory import copy_tree, is_remote
from jaxpolya.hf.families import Tensor, iter_tensors, leaf_tensors
from jaxpolya.hf.small_files import named_eos
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params, head_table, hidden_states
from jaxpolya.models.heads import logits
from jaxpolya.parallel.hosts import from_primary
from jaxpolya.parallel.mesh import batch_to_mesh, data_shards, is_primary, to_host
from jaxpolya.parallel.sharding import param_shardings, replicated

PROMPT = """\
How many ways are there to seat five people around a round table? Think of a simpler problem first: two people, then three.

1. Fix one person's seat; a rotation is no new way of sitting.
2. The other four can sit in 4 · 3 · 2 · 1 = 24 orders, so there are (5 − 1)! = 24 ways.

def seatings(n: int) -> int:
    return 1 if n < 3 else (n - 1) * seatings(n - 1)  # 1, 1, 2, 6, 24, …

Bei fünf Personen sind es 24 Möglichkeiten; 五个人有二十四种坐法。 Check: n = 3 gives 2, the two directions. 👍 The answer is \\boxed{24}.
"""
"""Prose, digits, code, spaces, three scripts and an emoji: some 200 tokens, on which tokenizers like to differ."""

TOLERANCE = 1e-4
"""Largest difference of two logits, as a share of the largest logit (at least 1).

SmolLM2-135M (30 layers, logits up to 45) differs by 4e-6 on a CPU, random small models of all families by 6e-6 at most. Mistakes made
on purpose gave 1.5e-4 for a rope base wrong by a thousandth, 9.5e-4 for an epsilon of 1e-6 instead of 1e-5, and 1e-3 for a rounding
to float16 that was left out.
"""

DTYPES = {"F32": jnp.float32, "F16": jnp.float16, "BF16": jnp.bfloat16}
"""By their names in safetensors files."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How near two models' logits over one prompt are."""

    tokens: int
    difference: float
    """The largest."""
    tolerance: float
    same_argmax: int
    """Positions at which both have the same likeliest token. At the others, two tokens are as near to each other as the tolerance."""

    def __str__(self) -> str:
        return (
            f"logits differ by {self.difference:.1e} at most (tolerance {self.tolerance:.1e}) over {self.tokens} tokens, and the likeliest "
            f"token is the same at {self.same_argmax} of {self.tokens} positions"
        )


def compare_export(directory: epath.Path, checkpoint: Checkpoint, mesh: Mesh) -> Agreement:
    """Loads a Hugging Face directory with transformers (and torch), in float32, and compares its tokenizer and logits with ours.

    Args:
      directory: what `hf.checkpoint.export_checkpoint` wrote, also `gs://…`, which is copied to a local directory first.
      checkpoint: what was exported.
      mesh: where its parameters are.

    Raises:
      CheckError: transformers can't load it, tokens differ, or logits differ by more than the tolerance.
    """
    with tempfile.TemporaryDirectory() as scratch:
        remote = is_remote(directory)
        local = Path(scratch if remote else directory)

        def look() -> dict[str, Any]:
            if remote:
                copy_tree(directory, epath.Path(local))
            return _look(local, checkpoint)

        seen = _decided_by_primary(look)
        ours_TV = _our_logits(checkpoint, seen["ids"], seen["dtypes"], mesh)
        return Agreement(**_decided_by_primary(lambda: dataclasses.asdict(_compare(local, seen["ids"], ours_TV, checkpoint.stop_ids))))


def _decided_by_primary(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the primary host found, on every host; a trouble there is raised on all of them."""
    outcome: dict[str, Any] = {}
    if is_primary():
        try:
            outcome = look()
        except CheckError as error:
            outcome = {"trouble": str(error)}
        except Exception as error:  # anything at all: what transformers can't load is no export
            outcome = {
                "trouble": f"transformers can't load what was written ({type(error).__name__}: {(str(error) or '–').splitlines()[0]})"
            }
    outcome = from_primary(outcome)
    if "trouble" in outcome:
        raise CheckError(f"verify: {outcome['trouble']}; nothing was written. Please report it, with the model's name")
    return outcome


def _look(directory: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """The prompt's token ids, and the dtype of every tensor in the files."""
    from transformers import AutoTokenizer

    ours, theirs = checkpoint.tokenizer, AutoTokenizer.from_pretrained(directory, local_files_only=True)
    ids = theirs(PROMPT)["input_ids"]
    if ids != ours(PROMPT)["input_ids"]:
        raise CheckError("transformers' tokenizer makes other tokens of the prompt than ours")
    for name, expected in (("chat_template", ours.chat_template), ("eos_token_id", named_eos(checkpoint.meta))):
        if getattr(theirs, name) != expected:
            raise CheckError(f"transformers' tokenizer has another {name} than ours")
    dtypes = {}
    for path in directory.glob("*.safetensors"):
        with safetensors.safe_open(path, framework="np") as file:
            dtypes.update({name: file.get_slice(name).get_dtype() for name in file.keys()})  # noqa: SIM118 (no mapping)
    if lacking := [tensor.name for tensor, _, _ in iter_tensors(checkpoint.config) if tensor.name not in dtypes]:
        raise CheckError(f"the files lack {', '.join(lacking[:3])}")
    return {"ids": ids[: checkpoint.config.max_positions], "dtypes": dtypes}


def _our_logits(checkpoint: Checkpoint, ids: list[int], dtypes: dict[str, str], mesh: Mesh) -> np.ndarray:
    """Logits [T, V], float32, of the parameters as the files hold them."""
    rounded = jax.tree.map(functools.partial(_round, dtypes), checkpoint.params, leaf_tensors(checkpoint.config))
    tokens_BT = batch_to_mesh(np.tile(np.array(ids, np.int32), (data_shards(mesh), 1)), mesh)  # a row for each data shard
    return to_host(_logits_program(checkpoint.config, mesh)(rounded, tokens_BT))


def _round(dtypes: dict[str, str], leaf: jax.Array, tensors: Tensor | list[Tensor]) -> jax.Array:
    """A parameter with the values that its file holds. Not under jit, where XLA may leave out a rounding that is undone at once."""
    stored = [dtypes[tensor.name] for tensor in (tensors if isinstance(tensors, list) else [tensors])]
    for dtype in set(stored) - {"F32"}:
        here = np.array([each == dtype for each in stored]).reshape(-1, *[1] * (leaf.ndim - 1))  # of a stacked leaf, the layers
        rounded = leaf.astype(DTYPES[dtype]).astype(leaf.dtype)
        leaf = rounded if here.all() else jnp.where(here, rounded, leaf)
    return leaf


@functools.cache
def _logits_program(config: DecoderConfig, mesh: Mesh) -> Callable[[Params, jax.Array], jax.Array]:
    def forward(params: Params, tokens_BT: jax.Array) -> jax.Array:
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        hidden_BTD = hidden_states(params, config, tokens_BT, positions_BT, jnp.ones_like(tokens_BT))
        return logits(config, hidden_BTD[0], head_table(params))

    return jax.jit(forward, in_shardings=(param_shardings(mesh, abstract_params(config), "train"), None), out_shardings=replicated(mesh))


def _compare(directory: Path, ids: list[int], ours_TV: np.ndarray, stop_ids: tuple[int, ...]) -> Agreement:
    """Our logits against those of transformers, and what ends a response. Raises `CheckError`."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()

    # Eager attention is the definition: the fused ones leave out soft-caps.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, local_files_only=True
    )
    model, loading = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, loading[kind])):
            raise CheckError(f"transformers finds {kind.replace('_', ' ')} in what was written: {', '.join(names[:3])}")
    eos = model.generation_config.eos_token_id
    if (ends := set(eos if isinstance(eos, list) else [eos]) - {None}) != set(stop_ids):
        raise CheckError(f"transformers' generate ends a response at {sorted(ends)}, and ours end at {sorted(stop_ids)}")
    with torch.no_grad():
        theirs_TV = model.eval()(torch.tensor([ids])).logits[0].numpy()
    agreement = Agreement(
        tokens=len(ids),
        difference=float(np.abs(ours_TV - theirs_TV).max()),
        tolerance=TOLERANCE * max(1.0, float(np.abs(theirs_TV).max())),
        same_argmax=int((ours_TV.argmax(-1) == theirs_TV.argmax(-1)).sum()),
    )
    if not agreement.difference <= agreement.tolerance:  # NaN is no agreement
        raise CheckError(f"transformers gets other logits from what was written: {agreement}")
    return agreement
