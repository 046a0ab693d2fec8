"""Writes small GGUF files the way llama.cpp's converter does, with the names of its own table (`gguf.get_tensor_name_map`)."""

import gguf
import numpy as np

Q = gguf.GGMLQuantizationType
ARCHITECTURES = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}


def write_file(path, architecture, values, tensors):
    """Writes a file.

    Args:
      path: where to.
      architecture: `general.architecture`.
      values: metadata; None leaves a key out.
      tensors: by GGUF's name: an array (stored in float32), or (what is stored, its kind).
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        match value:
            case None:
                pass
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
    for name, stored in tensors.items():
        data, kind = stored if isinstance(stored, tuple) else (np.asarray(stored, np.float32), Q.F32)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def converted(tensors, architecture, layers, heads=None, kv_heads=None):
    """Hugging Face's tensors as GGUF has them: its names, llama's q and k interleaved, Gemma's norms with 1 added."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[architecture], layers)

    def convert(name, array):
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            n = heads if "q_proj" in name else kv_heads
            return array.reshape(n, 2, array.shape[0] // n // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        return array + 1 if architecture.startswith("gemma") and name.endswith("norm.weight") else array

    for name, array in tensors.items():
        stem, kind = name.rsplit(".", 1)
        yield f"{names.get_name(stem)}.{kind}", convert(name, array)


def quantised(array, kind):
    """An array stored as some kind, by the quantiser of `gguf`."""
    return gguf.quants.quantize(np.asarray(array, np.float32), kind), kind


def random_blocks(rng, rows, columns, kind):
    """Rows of blocks of which any finite bits are possible, for the kinds that `gguf` can't quantise."""
    size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    count = rows * columns // size
    blocks = np.empty((0, block_bytes), np.uint8)
    while len(blocks) < count:
        more = rng.integers(0, 256, (count, block_bytes), np.uint8)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(more, kind).reshape(count, -1)
        blocks = np.concatenate([blocks, more[np.isfinite(values).all(1)]])
    return blocks[:count].reshape(rows, -1), kind
