"""A model on a mesh: what it computes, and what it says to prompts."""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from jax.sharding import Mesh
from pydantic import Field, PositiveInt

from jaxpolya.compile_cache import use_compile_cache
from jaxpolya.config import DecodeConfig, LoraConfig, ModelConfig, Sampling, Seed, Strict
from jaxpolya.config.file import build
from jaxpolya.decode import kernel_choice
from jaxpolya.decode.engine import Completion, Engine, Request
from jaxpolya.errors import ConfigError, InputError, not_finite
from jaxpolya.hf.checkpoint import Checkpoint, load_checkpoint
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, abstract_params, head_table, hidden_states
from jaxpolya.models.heads import logits
from jaxpolya.models.kernel_choice import with_kernel
from jaxpolya.parallel.mesh import batch_to_mesh, data_shards, make_mesh, to_host
from jaxpolya.parallel.sharding import batch_sharding, param_shardings, replicated
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.runs.results import model_of_run
from jaxpolya.train.adapters import adapted

Chat = Literal["auto", "always", "never"]


class _GenerateArguments(Strict):
    """What `Model.generate` is asked for, as far as no other configuration checks it."""

    prompts: list[str] = Field(min_length=1)
    samples: PositiveInt
    seed: Seed
    chat: Chat

    @pydantic.field_validator("prompts")
    @classmethod
    def _text(cls, prompts: list[str]) -> list[str]:
        "".join(prompts).encode()  # half of a character is a ValueError
        return prompts


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint on a mesh, and how it is spoken to. Nothing changes it: training gives another one."""

    checkpoint: Checkpoint
    mesh: Mesh
    dtype: Any
    """Compute dtype; parameters are float32."""
    chat: Chat = "auto"
    """Whether prompts are wrapped in the chat template, as `config.ModelConfig`."""
    system: str | None = None
    chat_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    decode_attention: Literal["auto", "xla", "pallas"] = "auto"
    """What computes a step's attention, as `config.DecodeConfig`."""

    @property
    def name(self) -> str:
        """What errors and cards call it: where it was loaded from."""
        return self.checkpoint.meta.source

    def prompt_builder(self, *, frame: str | None = None) -> PromptBuilder:
        """What makes its prompts. Raises `ConfigError` where it was to have a chat template, and has none."""
        return PromptBuilder(self.checkpoint.tokenizer, chat=self.chat, system=self.system, chat_arguments=self.chat_arguments, frame=frame)

    def with_params(self, params: Params, stop_ids: tuple[int, ...], name: str) -> "Model":
        """The same model with other parameters, which it was taught to end by any of `stop_ids`."""
        meta = dataclasses.replace(self.checkpoint.meta, source=name, stop_ids=stop_ids)
        return dataclasses.replace(self, checkpoint=Checkpoint(meta, params))

    def engine(
        self,
        builder: PromptBuilder,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        samples: int,
        *,
        rows: int,
        at_a_time: int | None = None,
        lora: LoraConfig | None = None,
    ) -> Engine:
        """A decode engine for these prompts' lengths.

        Args:
          builder: of the prompts.
          prompts: token ids.
          sampling: how responses are drawn, with all strings that end one.
          samples: per prompt.
          rows: responses decoded side by side.
          at_a_time: prompts of one call; unset is all.
          lora: adapters that it will be given beside the model's own parameters.
        """
        return Engine(
            adapted(self.checkpoint.config, lora),
            self.mesh,
            sampling=sampling,
            prompts=at_a_time or len(prompts),
            samples=samples,
            longest_prompt=max(map(len, prompts)),
            stop_ids=builder.stop_ids(self.checkpoint.stop_ids),
            decode=builder.spelling.decode,
            engine=build(DecodeConfig, "generate", rows=rows, attention=self.decode_attention),
            dtype=self.dtype,
            model=self.name,
        )

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
        with jax.set_mesh(self.mesh):
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
        chat: Chat | None = None,
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
          chat: `auto` uses the template where there is one; unset is as the model was loaded.
          chat_arguments: of the template, such as `{"enable_thinking": False}`; unset is as the model was loaded.
          rows: responses decoded side by side.

        Raises:
          ConfigError, InputError: an argument is out of its range, a prompt and its response don't fit the model, there is no chat
            template, or the model's log-probs are not finite.
        """
        as_said = self if chat is None else dataclasses.replace(self, chat=chat)
        if chat_arguments is not None:
            as_said = dataclasses.replace(as_said, chat_arguments=chat_arguments)
        prompts = build(_GenerateArguments, "generate", prompts=prompts, samples=samples, seed=seed, chat=as_said.chat).prompts
        builder = as_said.prompt_builder()
        sampling = build(Sampling, "generate", max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop)
        if builder.chat:  # what opens the next turn ends this one
            sampling = sampling.model_copy(update={"stop": [*sampling.stop, *builder.stops]})
        ids = [builder.say(prompt) if builder.chat else builder.encode(prompt) for prompt in prompts]
        engine = self.engine(builder, ids, sampling, samples, rows=rows)
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


def load(
    source: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    revision: str | None = None,
    arm: str | None = None,
    chat: Chat = "auto",
    system: str | None = None,
    chat_arguments: Mapping[str, Any] | None = None,
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto",
    decode_attention: Literal["auto", "xla", "pallas"] = "auto",
) -> Model:
    """Loads a checkpoint onto a mesh (all devices, by default).

    Args:
      source: a Hugging Face directory or hub name, a `.gguf` file, a model that jaxpolya wrote, or a finished run's directory.
      mesh: from `jaxpolya.make_mesh`.
      dtype: compute dtype; parameters are float32.
      revision: commit or tag of a hub model.
      arm: of a run, instead of its best.
      chat: whether prompts are wrapped in the tokenizer's chat template; `auto` does where there is one.
      system: the template's system message; unset leaves it to the template.
      chat_arguments: of the template, such as `{"enable_thinking": False}`.
      attention: what computes it, as `config.ModelConfig`; a warning says where the device's kernel can't be taken.
      decode_attention: the same of a step of decoding, as `config.DecodeConfig`.

    Raises:
      ConfigError: the source is no text or path, there is no such dtype, the template doesn't take what it is told, or the attention is
        another device's.
      InputError: it is missing, incomplete or not supported; the message says what to do.
    """
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"load: a path or a hub name is needed, not {source!r:.60}")
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"load: dtype {dtype!r} is not float32 or bfloat16")
    use_compile_cache()
    mesh = mesh or make_mesh()
    of_run = model_of_run(Path(source), arm)
    if arm and of_run is None:
        raise ConfigError(f"load: {source} is not a run directory, so it has no arm {arm}")
    told = build(
        ModelConfig, "load", source=of_run or str(source), chat=chat, system=system, chat_arguments=dict(chat_arguments or {}),
        attention=attention,
    )  # fmt: skip
    decode = build(DecodeConfig, "load: decode", attention=decode_attention)
    checkpoint = load_checkpoint(told.source, mesh=mesh, revision=revision)
    decoder, lacking = with_kernel(checkpoint.config, told.attention, jnp.dtype(dtype), mesh)
    _, lacking_in_decoding = kernel_choice.decode_attention(decoder, decode.attention, jnp.dtype(dtype), mesh)
    for said in filter(None, (lacking, lacking_in_decoding)):
        warnings.warn(f"{source}: {said}", stacklevel=2)
    checkpoint = dataclasses.replace(checkpoint, meta=dataclasses.replace(checkpoint.meta, config=decoder))
    model = Model(checkpoint, mesh, jnp.dtype(dtype), told.chat, told.system, told.chat_arguments, decode.attention)
    model.prompt_builder()  # a template that doesn't take its arguments says so here
    return model
