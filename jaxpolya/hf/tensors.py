"""From weight files to sharded parameters, a piece at a time.

A parameter is allocated on its devices once, as XLA's own memory, and filled by a small program that writes one piece into every
device's shard in place: the dtype of the file crosses to the device, and becomes float32 there. A piece is at most a layer's
slice and some megabytes over all devices of this host; so the host holds the parameters where devices are CPUs, a few pieces, and
nothing else. All devices go through a file side by side rather than one after another: where a shard is some columns of
each row, the file would otherwise be read once a device.

Threads fetch the next pieces while the devices take one: they start the disk's reads, download, or dequantise. Every host runs the
same programs in the same order and reads only what its own devices hold; a shard that several devices hold is read once.

Before anything is read, the names and shapes that the files declare are compared with what the configuration needs, so that a
wrong file is an error in milliseconds and names the tensor.
"""

import collections
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxpolya.errors import InputError
from jaxpolya.hf.families import Tensor, iter_tensors
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import Params, ParamSpec, abstract_params
from jaxpolya.parallel.sharding import param_shardings

PIECE_BYTES = 16 << 20  # float32, over the devices of this host: large enough to hide a dispatch, small beside any model
PIECES_AHEAD = 4
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

T = TypeVar("T")


class TensorFile(Protocol):
    """Weights under Hugging Face names and in Hugging Face layouts, wherever they really lie."""

    shapes: dict[str, tuple[int, ...]]
    """Of every tensor, in the order in which they are best read."""

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of a tensor, in any float dtype that can be cast to float32. Threads call it side by side."""

    def where(self, name: str) -> str:
        """The file that holds (or should hold) a tensor, for messages."""


# Checks ------------------------------------------------------------------------------------------------------------------


def check_tensors(files: TensorFile, config: DecoderConfig, also: Mapping[str, tuple[int, ...]] | None = None) -> None:
    """Raises `InputError` where files and configuration disagree about a tensor's existence or shape.

    Args:
      files: the weights.
      config: the decoder they are for.
      also: further tensors that must be there (a reward model's score).
    """
    needed = {tensor.name: tensor.shape for tensor, _, _ in iter_tensors(config)} | dict(also or {})
    problems = [f"{files.where(name)}: tensor {name} is missing" for name in needed if name not in files.shapes]
    # A tied head may be stored a second time, and old Llama files hold the rotary frequencies: both are redundant.
    redundant = {HEAD: files.shapes.get(EMBEDDING, ())} if config.tied_embeddings else {}
    problems += [
        f"{files.where(name)}: tensor {name} has shape {list(files.shapes[name])}; the configuration asks for {list(shape)}"
        for name, shape in (redundant | needed).items()
        if name in files.shapes and files.shapes[name] != shape
    ]
    problems += [
        f"{files.where(name)}: tensor {name} is unknown to a {config.family} model"
        for name in files.shapes
        if name not in needed and name not in redundant and not name.endswith("rotary_emb.inv_freq")
    ]
    if problems:
        more = f" (and {len(problems) - 3} more like it)" if len(problems) > 3 else ""
        raise InputError("; ".join(problems[:3]) + more)


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


class Piece(NamedTuple):
    """A part of a parameter that is read and put on all devices in one go."""

    path: tuple[str, ...]
    """Of the parameter."""
    tensor: Tensor
    layer: int | None
    """Of a stacked parameter."""
    start: tuple[int, ...]
    """Within each device's shard."""
    size: tuple[int, ...]


def read_params(files: TensorFile, config: DecoderConfig, mesh: Mesh) -> Params:
    """The float32 parameters in the training shardings of the mesh; see `models.decoder` for the tree."""
    abstract = abstract_params(config)
    shardings = param_shardings(mesh, abstract, "train")
    params = _allocate(abstract, shardings)
    last: tuple[str, ...] | None = None
    for piece, shards in _ahead(
        _pieces(files, config, shardings), lambda piece: _read(files, piece, leaf_at(shardings, piece.path), config)
    ):
        sharding = leaf_at(shardings, piece.path)
        array = _place(shards, piece, sharding, leaf_at(abstract, piece.path).shape)
        if last is not None:  # two pieces at most are on their way
            jax.block_until_ready(leaf_at(params, last))
        tree = params if len(piece.path) == 1 else params[piece.path[0]]
        start = np.array(piece.start, np.int32)
        tree[piece.path[-1]] = _writer(sharding)(tree[piece.path[-1]], array, start)
        last = piece.path
    return params


def leaf_at(tree: Any, path: tuple[str, ...]) -> Any:
    """What a tree like the parameters' has at a path."""
    return functools.reduce(lambda tree, name: tree[name], path, tree)


def _allocate(abstract: Params, shardings: Any) -> Params:
    """Parameters with nothing in them."""
    return jax.jit(lambda: jax.tree.map(lambda spec: jax.lax.empty(spec.shape, spec.dtype), abstract), out_shardings=shardings)()


@functools.cache
def _writer(sharding: NamedSharding) -> Callable[[jax.Array, jax.Array, np.ndarray], jax.Array]:
    """A program (parameter, piece, start) → parameter, in place, that writes the piece's shard into each device's shard."""

    def write(shard: jax.Array, piece: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(shard, piece.astype(shard.dtype), tuple(start))

    specs = (sharding.spec, sharding.spec, PartitionSpec())
    return jax.jit(jax.shard_map(write, mesh=sharding.mesh, in_specs=specs, out_specs=sharding.spec), donate_argnums=0)


def _pieces(files: TensorFile, config: DecoderConfig, shardings: Any) -> Iterator[Piece]:
    """The pieces of all parameters, in the order of the files."""
    abstract, order = abstract_params(config), {name: i for i, name in enumerate(files.shapes)}
    for tensor, path, layer in sorted(iter_tensors(config), key=lambda item: order[item[0].name]):
        spec: ParamSpec = leaf_at(abstract, path)
        sharding: NamedSharding = leaf_at(shardings, path)
        shard = sharding.shard_shape(spec.shape)
        one = shard if layer is None else (1, *shard[1:])
        here = len(set(map(str, _shards(sharding, spec.shape).values())))
        size = _piece_size(one, PIECE_BYTES // (spec.dtype.itemsize * here))
        # The last piece along an axis begins early rather than having a shape of its own.
        starts = [[min(start, whole - part) for start in range(0, whole, part)] for whole, part in zip(one, size, strict=True)]
        for start in itertools.product(*starts):
            yield Piece(path, tensor, layer, start if layer is None else (layer, *start[1:]), size)


def _piece_size(shape: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """The shape with its leading dimensions cut until it has `limit` elements at most."""
    size = list(shape)
    for axis in range(len(size)):
        size[axis] = max(1, min(size[axis], limit // math.prod(size[axis + 1 :])))
    return tuple(size)


def _read(files: TensorFile, piece: Piece, sharding: NamedSharding, config: DecoderConfig) -> dict[str, np.ndarray]:
    """What each of this host's devices takes of a piece; devices that hold the same shard share it."""
    shape = leaf_at(abstract_params(config), piece.path).shape
    shards: dict[str, np.ndarray] = {}
    for index in _shards(sharding, shape).values():
        if str(index) in shards:
            continue
        first = [cut.indices(size)[0] for cut, size in zip(index, shape, strict=True)]
        cuts = [slice(a + b, a + b + size) for a, b, size in zip(first, piece.start, piece.size, strict=True)]
        array = piece.tensor.read(files.read, tuple(cuts if piece.layer is None else cuts[1:]))
        shards[str(index)] = (array if array.dtype.itemsize <= 4 else array.astype(np.float32)).reshape(piece.size)
    return shards


def _place(shards: dict[str, np.ndarray], piece: Piece, sharding: NamedSharding, shape: tuple[int, ...]) -> jax.Array:
    """A piece on its devices: from the host once, to the other holders of the same shard from the first."""
    placed: dict[str, jax.Array] = {}
    arrays = []
    for device, index in _shards(sharding, shape).items():
        arrays.append(jax.device_put(placed.get(str(index), shards[str(index)]), device))
        placed.setdefault(str(index), arrays[-1])
    pieces = [whole // shard for whole, shard in zip(shape, sharding.shard_shape(shape), strict=True)]
    whole = tuple(count * size for count, size in zip(pieces, piece.size, strict=True))
    return jax.make_array_from_single_device_arrays(whole, sharding, arrays)


def _shards(sharding: NamedSharding, shape: tuple[int, ...]) -> dict[jax.Device, tuple[slice, ...]]:
    """What each of this host's devices holds of an array."""
    return {device: index or () for device, index in sharding.addressable_devices_indices_map(shape).items()}


def _ahead(pieces: Iterable[Piece], read: Callable[[Piece], T]) -> Iterator[tuple[Piece, T]]:
    """(piece, what `read` gives of it), with threads reading the next ones."""
    waiting: collections.deque[tuple[Piece, Future[T]]] = collections.deque()
    with ThreadPoolExecutor(PIECES_AHEAD) as pool:
        try:
            for piece in pieces:
                waiting.append((piece, pool.submit(read, piece)))
                if len(waiting) > PIECES_AHEAD:
                    first, result = waiting.popleft()
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        finally:
            for _, future in waiting:
                future.cancel()
