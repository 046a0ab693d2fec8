"""The Python interface: a model on a mesh that gives logits and samples, a verifier, and runs.

import jaxpolya

model = jaxpolya.load("weights/SmolLM2-135M-Instruct.Q4_1.gguf")
logits = model.logits([[1, 2, 3]])
answers = model.generate(["What is 3 * 4?"], samples=4, max_new_tokens=32)
verdict = jaxpolya.verify_response("3 * 4 = 12, so the answer is 12.", answer="12")
results = jaxpolya.run("configs/smoke.yaml")
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jax.sharding import Mesh
from pydantic import Field, PositiveInt

from jaxpolya.config import DecodeConfig, RunConfig, Sampling, Seed, Strict
from jaxpolya.config_file import build, load_config, parse_config
from jaxpolya.decode.engine import Completion, Engine, Request
from jaxpolya.errors import ConfigError, InputError, not_finite
from jaxpolya.hf.checkpoint import Checkpoint, load_checkpoint
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params, head_table, hidden_states
from jaxpolya.models.heads import logits
from jaxpolya.parallel.mesh import batch_to_mesh, data_shards, make_mesh, to_host
from jaxpolya.parallel.sharding import batch_sharding, param_shardings, replicated
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.progress import Display
from jaxpolya.results import Results
from jaxpolya.runs import pipeline


class _Asked(Strict):
    """What `Model.generate` is asked for, as far as no other configuration checks it."""

    prompts: list[str] = Field(min_length=1)
    samples: PositiveInt
    seed: Seed
    chat: Literal["auto", "always", "never"]

    @pydantic.field_validator("prompts")
    @classmethod
    def _text(cls, prompts: list[str]) -> list[str]:
        "".join(prompts).encode()  # half of a character is a ValueError
        return prompts


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint on a mesh."""

    checkpoint: Checkpoint
    mesh: Mesh
    dtype: Any

    def logits(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Logits [rows, T, V], float32, of token rows; T is the longest row's length, and what lies beyond a row's end means nothing.

        Raises `InputError` where there is no row, or one is empty, longer than the model's positions, or not of its token ids, and where
        the model gives NaN.
        """
        _check_rows(rows, self.checkpoint.config)
        shards = data_shards(self.mesh)
        T = max(map(len, rows))
        tokens_BT = np.zeros((-(-len(rows) // shards) * shards, T), np.int32)
        segment_ids_BT = np.zeros_like(tokens_BT)
        for i, row in enumerate(rows):
            tokens_BT[i, : len(row)], segment_ids_BT[i, : len(row)] = row, 1
        program = _logits_program(self.checkpoint.config, self.mesh, self.dtype)
        placed = batch_to_mesh((tokens_BT, segment_ids_BT), self.mesh)
        logits_BTV = to_host(program(self.checkpoint.params, *placed))[: len(rows)]
        if any(np.isnan(logits_BTV[i, : len(row)]).any() for i, row in enumerate(rows)):
            raise not_finite(self.checkpoint.meta.source, "logits", self.dtype)
        return logits_BTV

    def generate(
        self,
        prompts: Sequence[str],
        *,
        samples: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        chat: Literal["auto", "always", "never"] = "auto",
        chat_arguments: Mapping[str, Any] | None = None,
        rows: int = 64,
    ) -> list[list[Completion]]:
        """`samples` completions of each prompt, with tokens and log-probs (nats).

        Args:
          prompts: what a user says; wrapped in the model's chat template, where what it spells is text. If `chat` is `never`, the whole
            text that the model is to go on with, control tokens included.
          samples: per prompt; they share its prefill.
          max_new_tokens, temperature, top_k, top_p, stop: as `config.Sampling`; temperature 0 is greedy.
          seed: the same seed and prompts give the same samples.
          chat: `auto` uses the template where there is one.
          chat_arguments: of the template, such as `{"enable_thinking": False}`.
          rows: responses decoded side by side.

        Raises:
          ConfigError, InputError: an argument is out of its range, a prompt and its response don't fit the model, there is no chat
            template, or the model's log-probs are not finite.
        """
        prompts = build(_Asked, "generate", prompts=prompts, samples=samples, seed=seed, chat=chat).prompts
        builder = PromptBuilder(self.checkpoint.tokenizer, chat=chat, chat_arguments=chat_arguments)
        sampling = build(Sampling, "generate", max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop)
        if builder.chat:  # what opens the next turn ends this one
            sampling = sampling.model_copy(update={"stop": [*sampling.stop, *builder.stops]})
        ids = [builder.say(prompt) if builder.chat else builder.encode(prompt) for prompt in prompts]
        engine = Engine(
            self.checkpoint.config,
            self.mesh,
            sampling=sampling,
            prompts=len(ids),
            samples=samples,
            longest_prompt=max(map(len, ids)),
            stop_ids=builder.stop_ids(self.checkpoint.stop_ids),
            decode=builder.spelling.decode,
            engine=build(DecodeConfig, "generate", rows=rows),
            dtype=self.dtype,
            model=self.checkpoint.meta.source,
        )
        requests = [Request(str(i), prompt, i * samples, range(samples)) for i, prompt in enumerate(ids)]
        done = [completion for burst in engine.run(self.checkpoint.params, requests, seed) for completion in burst]
        ordered = sorted(done, key=lambda completion: (int(completion.request.id), completion.index))
        return [ordered[i * samples : (i + 1) * samples] for i in range(len(prompts))]


def _check_rows(rows: Sequence[Sequence[int]], config: DecoderConfig) -> None:
    if len(rows) == 0:
        raise InputError("logits: there is no row; give lists of token ids")
    for i, row in enumerate(rows):
        ids = np.asarray(row)
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"logits: row {i} is not a list of token ids ({str(row)[:60]!r}), or is empty")
        if len(ids) > config.context:
            raise InputError(f"logits: row {i} has {len(ids)} tokens, and the model {config.context} positions")
        if ids.min() < 0 or ids.max() >= config.vocab_size:
            raise InputError(f"logits: row {i} has ids from {ids.min()} to {ids.max()}; the model's go from 0 to {config.vocab_size - 1}")


@functools.cache
def _logits_program(config: DecoderConfig, mesh: Mesh, dtype: Any) -> Callable[..., jax.Array]:
    def forward(params: Params, tokens_BT: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        hidden_BTD = hidden_states(params, config, tokens_BT, positions_BT, segment_ids_BT, dtype=dtype)
        return logits(config, hidden_BTD, head_table(params))

    shardings = param_shardings(mesh, abstract_params(config), "train")
    batch = batch_sharding(mesh)
    return jax.jit(forward, in_shardings=(shardings, batch, batch), out_shardings=replicated(mesh))


def load(source: str, *, mesh: Mesh | None = None, dtype: Literal["float32", "bfloat16"] = "float32", revision: str | None = None) -> Model:
    """Loads a checkpoint onto a mesh (all devices, by default).

    Args:
      source: a Hugging Face directory or hub name, a `.gguf` file, or a model that jaxpolya wrote.
      mesh: from `jaxpolya.make_mesh`.
      dtype: compute dtype; parameters are float32.
      revision: commit or tag of a hub model.

    Raises:
      ConfigError: there is no such dtype.
      InputError: it is missing, incomplete or not supported; the message says what to do.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"load: dtype {dtype!r} is not float32 or bfloat16")
    mesh = mesh or make_mesh()
    return Model(load_checkpoint(source, mesh=mesh, revision=revision), mesh, jnp.dtype(dtype))


def run(config: str | Path | RunConfig, *, overrides: Iterable[str] = (), only: str | None = None, quiet: bool = False) -> Results | None:
    """Runs a configuration (a YAML file, or a `RunConfig`), or what is left of it, or one phase.

    Returns what results.json holds; None where `only` names an earlier phase. Raises `JaxpolyaError`.
    """
    if isinstance(config, RunConfig):
        loaded = parse_config(config.model_dump(mode="json"), overrides)
    else:
        loaded = load_config(config, overrides)
    return pipeline.run(loaded, Display(quiet=quiet), only=only)


__all__ = ["Model", "load", "make_mesh", "run"]
