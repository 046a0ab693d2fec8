"""The sharding table: where each logical axis lies on the mesh, in training and in decoding.

A parameter names its logical axes once (models/decoder.py); this table turns them into mesh axes. Changing a row reshards
the model. Training spreads parameters and optimizer state over `fsdp` and gathers them layer by layer; decoding holds whole
copies per data shard (a gather at every token would cost more than the memory) and splits only over `tensor`.

An axis that its mesh axis doesn't divide (9 heads over 2 devices) is kept whole, which costs memory and nothing else.
"""

import math
from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Column = Literal["train", "decode"]
Axes = str | tuple[str, ...] | None

DATA = ("replica", "fsdp")

TABLE: dict[str, dict[Column, Axes]] = {
    "batch":      {"train": DATA,     "decode": DATA},
    "layers":     {"train": None,     "decode": None},
    "width":      {"train": "fsdp",   "decode": None},
    "heads":      {"train": "tensor", "decode": "tensor"},
    "kv_heads":   {"train": "tensor", "decode": "tensor"},
    "head_width": {"train": None,     "decode": None},
    "ff":         {"train": "tensor", "decode": "tensor"},
    "vocab":      {"train": "tensor", "decode": "tensor"},
    "rank":       {"train": None,     "decode": None},
}  # fmt: skip


def spec(mesh: Mesh | jax.sharding.AbstractMesh, axes: tuple[str | None, ...], shape: tuple[int, ...], column: Column) -> PartitionSpec:
    """The partition of an array with these logical axes and this shape."""
    parts: list[Axes] = []
    for axis, size in zip(axes, shape, strict=True):
        mesh_axes = TABLE[axis][column] if axis else None
        divides = mesh_axes is not None and size % shards(mesh, mesh_axes) == 0
        parts.append(mesh_axes if divides else None)
    return PartitionSpec(*parts)


def shards(mesh: Mesh | jax.sharding.AbstractMesh, axes: Axes) -> int:
    """Number of pieces that these mesh axes cut an array dimension into."""
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape[name] for name in names)


def param_shardings(mesh: Mesh, abstract: Any, column: Column) -> Any:
    """The tree of shardings for a tree of `ParamSpec`."""
    return jax.tree.map(lambda p: NamedSharding(mesh, spec(mesh, p.axes, p.shape, column)), abstract)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all data shards; the other dimensions whole."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shards_in_context(axis: str, size: int) -> int:
    """Pieces that the mesh in context cuts a logical axis of this size into, in training; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else shards(mesh, spec(mesh, (axis,), (size,), "train")[0])


def data_shards_in_context() -> int:
    """Pieces that the mesh in context cuts a batch into; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else shards(mesh, DATA)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Tells the partitioner where an activation lies. Without a mesh in context (`jax.set_mesh`) it is x itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(mesh, axes, x.shape, "train"))
