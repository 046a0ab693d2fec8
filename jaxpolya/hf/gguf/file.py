"""GGUF files (llama.cpp's format), read as if they were Hugging Face checkpoints.

The file's own metadata is the authority on shapes, rope and context. Tensors have the order of dimensions that Hugging Face
uses; two things that llama.cpp's converter does to them are undone: it interleaves the rows of llama's q and k for its own
rotary embedding, and adds 1 to Gemma's norms. Blocks are dequantised as a shard asks for them, those that hold its rows and
columns and no others, some at a time: beside the float32 slice that comes out, memory holds a few megabytes.

Source of the names, of the interleaving (`permute`) and of the norms: llama.cpp's converter, conversion/{llama,gemma}.py.
"""

import functools
import re
from pathlib import Path

import gguf
import numpy as np
from etils import epath

from jaxpolya.errors import InputError
from jaxpolya.hf.directory import local_file
from jaxpolya.hf.gguf.config import ROPE_FREQS, Metadata, read_config
from jaxpolya.hf.gguf.header import StoredTensor, read_header

# GGUF's stem (`blk.{i}.` before it where it belongs to a layer) → Hugging Face's
ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SANDWICH = BLOCK | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
BLOCKS_OF = {"gemma2": SANDWICH, "gemma3": SANDWICH}  # BLOCK for the others

CHUNK = 2**18
"""Values that are dequantised at a time: the intermediate arrays of `gguf` stay in the processor's cache."""


class GGUFFile:
    """An open GGUF file: metadata, and tensors under Hugging Face names (a `hf.tensors.TensorFile`)."""

    def __init__(self, path: Path | epath.Path):
        self.path = path
        values, stored = read_header(local_file(epath.Path(path)), str(path))
        self.metadata = Metadata(values, str(path))
        if (pieces := self.metadata.value("split.count", int, 1)) > 1:
            raise InputError(f"{path} is one of {pieces} pieces; join them with llama.cpp's gguf-split --merge")
        self.architecture = self.metadata.architecture
        for name, tensor in stored.items():
            if not _is_readable(tensor.kind):
                raise InputError(f"{path}: tensor {name} is stored as {tensor.kind.name}, which can't be read")
        freqs = stored.pop(ROPE_FREQS, None)
        stems = BLOCKS_OF.get(self.architecture, BLOCK)
        self._tensors = {_hf_name(name, stems): tensor for name, tensor in stored.items()}
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self.config = read_config(self.metadata, self.shapes, None if freqs is None else _values(freqs, np.array([0]), slice(None))[0])

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A float32 slice of a tensor."""
        tensor = self._tensors[name]
        order = np.arange(tensor.shape[0])
        if self.architecture == "llama" and re.search(r"\.[qk]_proj\.", name):
            order = _interleaved_rows(tensor.shape[0], self.config.head_width)
        rows = order[index[0]]
        # A vector is one row in the file.
        values = _values(tensor, np.array([0]), slice(None))[0, rows] if len(tensor.shape) == 1 else _values(tensor, rows, index[1])
        return values - np.float32(1) if self.config.zero_centred_norms and name.endswith("norm.weight") else values

    def where(self, name: str) -> str:
        """The file, for messages."""
        return str(self.path)


@functools.cache
def _is_readable(kind: gguf.GGMLQuantizationType) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _values(tensor: StoredTensor, rows: np.ndarray, columns: slice) -> np.ndarray:
    """The values at some rows [R] and consecutive columns [C] of a tensor, float32 [R, C]."""
    size, block_bytes = gguf.GGML_QUANT_SIZES[tensor.kind]
    start, stop, _ = columns.indices(tensor.shape[-1])
    first, last = start // size, -(-stop // size)  # blocks of a row
    values = np.empty((len(rows), stop - start), np.float32)
    step = max(1, CHUNK // ((last - first) * size))
    for at in range(0, len(rows), step):
        # As one long row: `gguf` would otherwise take sixteen rows at a time.
        blocks = tensor.data[rows[at : at + step], first * block_bytes : last * block_bytes].reshape(1, -1)
        part = gguf.quants.dequantize(blocks, tensor.kind).reshape(-1, (last - first) * size)
        values[at : at + step] = part[:, start - first * size : stop - first * size]
    return values


def _hf_name(name: str, stems: dict[str, str]) -> str:
    """Hugging Face's name of a GGUF tensor; an unknown one keeps its own."""
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, stem, kind = match.groups()
        return f"model.layers.{layer}.{stems[stem]}.{kind}" if stem in stems else name
    stem, _, kind = name.rpartition(".")
    return f"{ENDS[stem]}.{kind}" if stem in ENDS else name


def _interleaved_rows(rows: int, head_width: int) -> np.ndarray:
    """Row of the file [rows] that holds each row of the half-split layout.

    Half-split row (head, half, pair) lies at the file's (head, pair, half).
    """
    return np.arange(rows).reshape(-1, head_width // 2, 2).swapaxes(1, 2).reshape(-1)
