import jax
import numpy as np

from jaxpolya.hf.checkpoint import load_checkpoint


def test_meshes_hold_the_same_parameters(tiny_checkpoint, mesh1, mesh8):
    one, eight = (load_checkpoint(str(tiny_checkpoint), mesh=mesh) for mesh in (mesh1, mesh8))
    jax.tree.map(np.testing.assert_array_equal, one.params, eight.params)
    assert {device.id for device in eight.params["blocks"]["q"].sharding.device_set} == set(range(8))
