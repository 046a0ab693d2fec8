"""The device mesh `(replica, fsdp, tensor)` and what its hosts share.

Hosts decide alike: whatever steers the program (which row is finished, what a verdict was, when to stop) is fetched so that
every host holds the same values, and derived from nothing else.
"""

import math
import os
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh

from jaxpolya.config import MeshConfig
from jaxpolya.errors import ConfigError, MachineError, machine_trouble
from jaxpolya.parallel.sharding import batch_sharding

AXES = ("replica", "fsdp", "tensor")


def make_mesh(config: MeshConfig = MeshConfig(), devices: list[jax.Device] | None = None) -> Mesh:  # noqa: B008 (frozen)
    """The mesh over all devices (or those given); of several slices, each is a part of the `replica` axis.

    Raises `ConfigError` where the axes don't multiply to the number of devices, or replicas to slices, `MachineError` where there are none.
    """
    devices = all_devices() if devices is None else devices
    sizes = [config.replica, config.fsdp, config.tensor]
    fixed = math.prod(size for size in sizes if size > 0)
    if -1 in sizes and len(devices) % fixed == 0:
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        asked = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, (config.replica, config.fsdp, config.tensor), strict=True))
        raise ConfigError(f"mesh: {asked} does not fit {len(devices)} device{'s' * (len(devices) > 1)}; their product must be that number")
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    if sizes[0] % slices:
        raise ConfigError(f"mesh: replica={sizes[0]} is not a multiple of the {slices} slices; only replica spans slices")
    within = (sizes[0] // slices, *sizes[1:])
    return Mesh(create_hybrid_device_mesh(within, (slices, 1, 1), devices), AXES, axis_types=(AxisType.Auto,) * 3)


def all_devices() -> list[jax.Device]:
    """The devices of all hosts. Raises `MachineError` where the platform that was asked for has none."""
    try:
        return jax.devices()
    except AssertionError:  # all that jax 0.10 says where JAX_PLATFORMS=cuda finds no NVIDIA GPU
        trouble: str | None = (
            f"the device is not there: JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS')}, and no such device is visible here (a container "
            "may have to be given its GPUs); JAX_PLATFORMS=cpu runs without it"
        )
    except RuntimeError as error:
        if (trouble := machine_trouble(error)) is None:
            raise
    raise MachineError(trouble)


def data_shards(mesh: Mesh) -> int:
    """Devices along the axes that a batch is split over."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def to_host(tree: Any) -> Any:
    """The tree as numpy arrays, whole on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def batch_to_mesh(tree: Any, mesh: Mesh) -> Any:
    """Arrays [R, …] that every host holds whole, with their rows over the data shards of the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_callback(array.shape, sharding, lambda index: array[index]), tree)


def batch_argument(tree: Any, mesh: Mesh) -> Any:
    """What `batch_to_mesh` gives, as the argument of a program whose `in_shardings` place it so. One host's arrays are left as they are,
    and must not be written to afterwards: jit places them itself, in a tenth of the time."""
    return tree if jax.process_count() == 1 else batch_to_mesh(tree, mesh)


def is_primary() -> bool:
    """Whether this host writes the files that one host writes."""
    return jax.process_index() == 0
