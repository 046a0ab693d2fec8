"""From weight files to sharded parameters, slice by slice.

Every shard that this host's devices hold is filled in place: pieces of a tensor are read, cast to float32 and written where they
belong, with no copy of a layer in between, and a CPU device takes the filled memory over as it is. So the host holds the
parameters that are its own and some pages of the file, and where devices have memory of their own, the shards of one parameter at
a time. Shards of one parameter are filled side by side: where a shard is some columns of each row, the file would otherwise be
read once a device. A shard that several devices hold is read once.

Where there are several hosts, each reads whole rows, about as many as its share: a file has no cheap way to some columns of each row,
which is what a shard often is. The devices then change rows for columns among themselves.

On one host nothing is compiled for it, which would cost a second and a hundred megabytes before the first tensor. Threads share the pieces:
they wait for the disk or the object store, cast, or dequantise.

Before anything is read, the names and shapes that the files declare are compared with what the configuration needs, so that a
wrong file is an error in milliseconds and names the tensor.
"""

import functools
import itertools
import math
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxpolya.errors import InputError
from jaxpolya.hf.families import Tensor, iter_tensors, leaf_tensors
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, ParamSpec, abstract_params
from jaxpolya.parallel.sharding import param_shardings

PIECE_BYTES = 4 << 20  # of parameters that a thread fills in one go
READERS = 4
Bounds = tuple[tuple[int, int], ...]
"""Where a shard begins and ends along each axis."""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WRAPPERS = ("language_model.model.", "model.language_model.model.", "model.language_model.", "language_model.")
"""Before the names of a text model's tensors (in place of `model.`) where it is a part of one that sees images too."""
BESIDE = re.compile(
    # Tables that are computed, not learned: rotary frequencies, causal masks, positions, Gemma's scale of embeddings
    r"(?:^|\.)(?:rotary_emb\w*\..+|inv_freq|(?:self_)?attn\.(?:bias|masked_bias)|causal_mask|position_ids|embed_scale)$"
    # Parts for images and sounds
    r"|^(?:model\.)?(?:vision_\w+|visual|audio_\w+|embed_vision|embed_audio|multi_modal_projector|mm_projector)\."
    # Heads beside the language model's: a value head of RL, a score, heads that guess several tokens
    r"|^(?:model\.)?(?:(?!lm_)\w*_heads?|score)\."
    # Multi-token prediction
    r"|(?:^|\.)(?:mtp\w*|nextn\w*)\."
)
"""Names of tensors that change nothing of a decoder's logits."""
PREDICTS_MORE = re.compile(r"^model\.layers\.(\d+)\.(?:eh_proj|enorm|hnorm)\.")
"""A layer behind the last one that has such tensors is one of multi-token prediction."""


class TensorFile(Protocol):
    """Weights under Hugging Face names and in Hugging Face layouts, wherever they really lie."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of a tensor, in any float dtype that can be cast to float32. Threads call it side by side."""

    def where(self, name: str) -> str:
        """The file that holds (or should hold) a tensor, for messages."""


# Checks ------------------------------------------------------------------------------------------------------------------


def usual_names(names: Iterable[str], config: DecoderConfig) -> dict[str, str]:
    """Name in the files → name that `save_pretrained` would have given it, where that is another.

    A base model saved by itself has no `model.` before its names; a text model that is part of a larger one has more. Of a tied pair,
    `safetensors.torch.save_model` keeps the name that comes first in the alphabet, which is the head's. transformers reads all of these.
    """
    names = set(names)
    usual = {name: name for name in names}
    if wrapper := next((prefix for prefix in WRAPPERS if prefix + EMBEDDING.removeprefix("model.") in names), None):
        head = wrapper.removesuffix("model.") + HEAD if wrapper.endswith("model.") else HEAD
        usual |= {name: "model." + name.removeprefix(wrapper) for name in names if name.startswith(wrapper)}
        usual |= {head: HEAD} if head in names else {}
    elif EMBEDDING.removeprefix("model.") in names:
        usual = {name: name if name.startswith(("model.", "lm_head.", "score.")) else f"model.{name}" for name in names}
    if config.tied_embeddings and HEAD in names and EMBEDDING not in usual.values():
        usual[HEAD] = EMBEDDING
    return {name: becomes for name, becomes in usual.items() if name != becomes}


def check_tensors(files: TensorFile, config: DecoderConfig, also: Mapping[str, tuple[int, ...]] | None = None) -> tuple[str, ...]:
    """The tensors that are no part of the decoder and change nothing of it.

    Raises `InputError` where files and configuration disagree about a tensor's existence or shape.

    Args:
      files: the weights.
      config: the decoder they are for.
      also: further tensors that must be there (a reward model's score).
    """
    needed = {tensor.name: tensor.shape for tensor, _, _ in iter_tensors(config)} | dict(also or {})
    problems = [f"{files.where(name)}: tensor {name} is missing" for name in needed if name not in files.shapes]
    # A tied head may be stored a second time.
    redundant = {HEAD: needed[EMBEDDING]} if config.tied_embeddings else {}
    problems += [
        f"{files.where(name)}: tensor {name} has shape {list(files.shapes[name])}; the configuration asks for {list(shape)}"
        for name, shape in (redundant | needed).items()
        if name in files.shapes and files.shapes[name] != shape
    ]
    others = [name for name in files.shapes if name not in needed and name not in redundant]
    beside = _beside(others, config)
    problems += [f"{files.where(name)}: tensor {name} is unknown to a {config.family} model" for name in others if name not in beside]
    if problems:
        more = f" (and {len(problems) - 3} more like it)" if len(problems) > 3 else ""
        raise InputError("; ".join(problems[:3]) + more)
    return tuple(beside)


def _beside(names: Sequence[str], config: DecoderConfig) -> list[str]:
    """Those of a decoder's unknown tensors that are known to be none of it."""
    behind = {int(layer[1]) for name in names if (layer := PREDICTS_MORE.match(name)) and int(layer[1]) >= config.layers}
    further = tuple(f"model.layers.{i}." for i in behind)
    return [name for name in names if BESIDE.search(name) or name.startswith(further)]


def check_tied_head(files: TensorFile, config: DecoderConfig) -> None:
    """Raises `InputError` where a head is stored beside the embedding table that it is tied to, and differs from it.

    transformers would use both then; to load the head and tie it all the same would change the model without a word.
    """
    if not config.tied_embeddings or HEAD not in files.shapes:
        return
    rows, width = files.shapes[EMBEDDING]
    step = max(1, PIECE_BYTES // (4 * width))
    for start in range(0, rows, step):
        index = slice(start, min(start + step, rows)), slice(0, width)
        if not np.array_equal(files.read(EMBEDDING, index), files.read(HEAD, index)):
            raise InputError(
                f"{files.where(HEAD)}: {HEAD} differs from {EMBEDDING} (among the rows {start} to {index[0].stop - 1}), though config.json "
                "ties the two; set tie_word_embeddings to false there if both are meant, or delete the head"
            )


# Reading -----------------------------------------------------------------------------------------------------------------


def read_params(files: TensorFile, config: DecoderConfig, mesh: Mesh) -> Params:
    """The float32 parameters in the training shardings of the mesh; see `models.decoder` for the tree."""
    abstract = abstract_params(config)
    with ThreadPoolExecutor(READERS) as pool:
        read = functools.partial(_read_parameter, files, pool)
        return jax.tree.map(read, abstract, param_shardings(mesh, abstract, "train"), leaf_tensors(config))


def _read_parameter(
    files: TensorFile, pool: ThreadPoolExecutor, spec: ParamSpec, sharding: NamedSharding, tensor: Tensor | list[Tensor]
) -> jax.Array:
    reading = sharding if jax.process_count() == 1 else by_rows(sharding, spec.shape, stacked=isinstance(tensor, list))
    bounds = {
        device: tuple(cut.indices(size)[:2] for cut, size in zip(index or (), spec.shape, strict=True))
        for device, index in reading.addressable_devices_indices_map(spec.shape).items()
    }
    shards = {bound: _memory(reading.shard_shape(spec.shape), spec.dtype) for bound in dict.fromkeys(bounds.values())}
    _fill(files, pool, shards, tensor)
    arrays: list[jax.Array] = []
    placed: dict[Bounds, jax.Array] = {}
    for device, bound in bounds.items():  # a further holder of a shard has it from the first
        arrays.append(jax.device_put(placed.get(bound, shards[bound]), device))
        placed.setdefault(bound, arrays[-1])
    # Waits, so that devices with memory of their own leave one parameter at most on the host.
    read = jax.block_until_ready(jax.make_array_from_single_device_arrays(spec.shape, reading, arrays))
    return read if reading == sharding else jax.block_until_ready(_exchange(sharding)(read))


def by_rows(sharding: NamedSharding, shape: tuple[int, ...], *, stacked: bool) -> NamedSharding:
    """A sharding over the same devices that cuts no row of a file: mesh axes move to the rows, or to the layers, where they divide them."""
    parts = [list((axes,) if isinstance(axes, str) else axes or ()) for axes in sharding.spec]
    outer = (1, 0) if stacked else (0,)
    for inner in parts[len(outer) :]:
        for axis in tuple(inner):
            for place in outer:
                if shape[place] % math.prod(sharding.mesh.shape[name] for name in (*parts[place], axis)) == 0:
                    parts[place].append(axis)
                    inner.remove(axis)
                    break
    return NamedSharding(sharding.mesh, PartitionSpec(*(tuple(axes) or None for axes in parts)))


@functools.cache
def _exchange(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    """A program that lays a parameter out otherwise."""
    return jax.jit(lambda array: array, out_shardings=sharding)


def _fill(files: TensorFile, pool: ThreadPoolExecutor, shards: dict[Bounds, np.ndarray], tensor: Tensor | list[Tensor]) -> None:
    """Reads the shards of one parameter. What several of them have in the same layers and rows is read in one go."""
    layers = tensor if isinstance(tensor, list) else [tensor]
    views = shards if isinstance(tensor, list) else {((0, 1), *bound): shard[None] for bound, shard in shards.items()}  # [layers, rows, …]
    together: dict[Bounds, list[Bounds]] = {}
    for bound in views:
        together.setdefault(bound[:2], []).append(bound)

    def pieces() -> Iterator[tuple[int, slice, list[Bounds]]]:
        for ((first, last), (begin, end)), bounds in together.items():
            row = math.prod(high - low for low, high in bounds[0][2:])
            step = max(1, PIECE_BYTES // (4 * row * len(bounds)))
            for layer, start in itertools.product(range(first, last), range(begin, end, step)):
                yield layer, slice(start, min(start + step, end)), bounds

    def fill(piece: tuple[int, slice, list[Bounds]]) -> None:
        layer, rows, bounds = piece
        # Along the other axes: from where the first of these shards begins to where the last one ends.
        span = [(min(begins), max(ends)) for begins, ends in (zip(*axis, strict=True) for axis in zip(*bounds, strict=True))][2:]
        array = layers[layer].read(files.read, (rows, *(slice(*cut) for cut in span)))
        for bound in bounds:
            (first, _), (begin, _), *cuts = bound
            inner = (slice(low - base, high - base) for (low, high), (base, _) in zip(cuts, span, strict=True))
            views[bound][layer - first, rows.start - begin : rows.stop - begin] = array[(slice(None), *inner)]

    for _ in pool.map(fill, pieces()):
        pass


def _memory(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Memory that begins at a page, as CPU devices need it to take it over without a copy; in large pages where the system has them.

    Such an array isn't XLA's own: a program that is given it for good (donation) copies it. A training state is built once.
    """
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def leaf_at(tree: Any, path: tuple[str, ...]) -> Any:
    """What a tree like the parameters' has at a path."""
    return functools.reduce(lambda tree, name: tree[name], path, tree)
