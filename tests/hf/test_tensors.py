import itertools

import jax
import numpy as np

from jaxpolya.hf.families import iter_tensors
from jaxpolya.hf.safetensors_file import Safetensors
from jaxpolya.hf.tensors import read_params
from jaxpolya.models.decoder import init_params


def test_any_slice_is_the_slice_of_the_whole(tiny_config):
    params = jax.device_get(init_params(tiny_config, jax.random.key(0)))
    cuts = (slice(None), slice(2, 5), slice(1, None))
    for tensor, path, layer in iter_tensors(tiny_config):
        if layer == 1:
            continue
        whole = params[path[0]] if layer is None else params["blocks"][path[1]][layer]
        stored = tensor.to_file(whole)
        assert stored.shape == tensor.shape
        for index in itertools.product(cuts, repeat=whole.ndim):
            found = tensor.read(lambda _, there, stored=stored: stored[there], index)
            np.testing.assert_array_equal(found, whole[index], err_msg=f"{tensor.name} {index}")


def test_a_device_reads_its_shard_and_no_more(tiny_checkpoint, tiny_config, mesh8):
    class Recording(Safetensors):
        reads: dict[str, list[int]]

        def read(self, name, index):
            array = super().read(name, index)
            self.reads.setdefault(name, []).append(array.size)
            return array

    files = Recording(tiny_checkpoint)
    files.reads = {}
    read_params(files, tiny_config, mesh8)
    # 8 devices: q is cut by fsdp = 2 and tensor = 2, the norm by fsdp alone.
    assert files.reads["model.layers.1.self_attn.q_proj.weight"] == [32 * 32 // 4] * 8
    assert files.reads["model.norm.weight"] == [32 // 2] * 8
