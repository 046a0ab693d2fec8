"""Safetensors files against the library's own reader and writer, and what is wrong with them."""

import json
import random
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from etils import epath

from jaxpolya.errors import InputError
from jaxpolya.hf.safetensors_file import Safetensors, file_order, open_to_write

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(8).reshape(4, 2).astype(ml_dtypes.bfloat16),
    "é": np.linspace(-1, 1, 7).astype(np.float16),
    "none": np.zeros((0, 3), np.float32),
    "layers.10": np.ones(3, ml_dtypes.bfloat16),
    "layers.2": np.float32(4).reshape(1),
}


@pytest.fixture
def directory(tmp_path):
    """Two shards with an index."""
    shards = {"model-00001-of-00002.safetensors": ["a", "b"], "model-00002-of-00002.safetensors": ["é", "layers.2"]}
    for file, names in shards.items():
        safetensors.numpy.save_file({name: TENSORS[name] for name in names}, tmp_path / file)
    weight_map = {name: file for file, names in shards.items() for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tmp_path


def test_what_is_written_is_what_the_library_writes(tmp_path):
    dtypes = {name: array.dtype.name for name, array in TENSORS.items()}
    shapes = {name: array.shape for name, array in TENSORS.items()}
    with open_to_write(epath.Path(tmp_path / "model.safetensors"), dtypes, shapes) as write:
        for name in file_order(dtypes):
            write(TENSORS[name])
    safetensors.numpy.save_file(TENSORS, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()
    files = Safetensors(tmp_path)
    for name, array in TENSORS.items():
        whole = files.read(name, tuple(slice(None) for _ in array.shape))
        assert (whole.dtype, whole.tobytes()) == (array.dtype, array.tobytes())
    np.testing.assert_array_equal(files.read("b", (slice(1, 2), slice(1, 3))), TENSORS["b"][1:2, 1:3])
    assert not files.read("b", (slice(1, 2), slice(1, 3))).flags.writeable


def test_a_damaged_file_is_refused_where_the_library_refuses_it(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({name: TENSORS[name] for name in ("a", "b", "é")}, path)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(1500):
        data = bytearray(whole)
        match rng.randrange(3):
            case 0:
                data[rng.randrange(header)] = rng.choice(b'0123456789[]{},:" FB') if rng.random() < 0.8 else rng.randrange(256)
            case 1:
                del data[rng.randrange(len(data)) :]
            case 2:
                data += bytes(rng.randrange(1, 9))
        path.write_bytes(data)
        try:
            with safetensors.safe_open(path, framework="np") as handle:
                theirs = {name: (handle.get_slice(name).get_dtype(), tuple(handle.get_slice(name).get_shape())) for name in handle.keys()}  # noqa: SIM118
        except safetensors.SafetensorError:
            with pytest.raises(InputError, match=f"{path}: "):
                Safetensors(tmp_path)
            refused += 1
        else:
            assert Safetensors(tmp_path).shapes == {name: shape for name, (_, shape) in theirs.items()}
    assert refused > 1000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a whole safetensors file"),
        (b"\x01\x02", "it has 2 bytes"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "header would have 1152921504606846976 bytes"),
        ((4).to_bytes(8, "little") + b"nope", "header is not readable"),
        ((2).to_bytes(8, "little") + b"[]", "header is not readable"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "header is not readable"),
        ((16).to_bytes(8, "little") + b'{"a":1,"a":2}   ', "a is there twice"),
    ],
)
def test_headers_that_are_none(tmp_path, data, reason):
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=rf"{tmp_path}/model.safetensors: .*{reason}.*download or copy it again"):
        Safetensors(tmp_path)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8"])
def test_dtypes_that_are_not_read_are_named(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(2), "q": torch.zeros(4).to(getattr(torch, dtype))}, tmp_path / "model.safetensors")
    files = Safetensors(tmp_path)
    files.check_readable(["a"])
    assert files.read("a", (slice(None),)).tolist() == [0, 0]
    for ask in (lambda: files.check_readable(["a", "q"]), lambda: files.read("q", (slice(None),))):
        with pytest.raises(InputError, match=r"model.safetensors: tensor q is stored as (F8_E4M3|I8); give a checkpoint in bfloat16"):
            ask()


def lie(directory, **changes):
    path = directory / "model.safetensors.index.json"
    tree = json.loads(path.read_text())
    tree["weight_map"] = {name: file for name, file in (tree["weight_map"] | changes).items() if file is not None}
    path.write_text(json.dumps(tree))


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": TWO}, f"index.json says that a is in {TWO}; it is not"),
        ({"new": ONE}, f"index.json says that new is in {ONE}; it is not"),
        ({"a": None}, f"{ONE} holds a, which .*index.json doesn't name"),
        ({"a": "model-00003.safetensors"}, "index.json says that a is in model-00003.safetensors, which is not there"),
        ({"a": "../model.safetensors"}, r"index.json: a is said to be in '../model.safetensors', which is no safetensors file"),
        ({"a": "/etc/passwd"}, "a is said to be in '/etc/passwd'"),
        ({"a": "pytorch_model.bin"}, "a is said to be in 'pytorch_model.bin'"),
        ({"a": 1}, "a is said to be in 1"),
    ],
)
def test_an_index_that_lies(directory, changes, message):
    assert set(Safetensors(directory).shapes) == {"a", "b", "é", "layers.2"}
    lie(directory, **changes)
    with pytest.raises(InputError, match=message):
        Safetensors(directory)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}'])
def test_an_index_that_is_none(directory, text):
    (directory / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match=r"index.json: (not a safetensors index|its weight_map is empty)"):
        Safetensors(directory)


def test_an_index_that_is_a_directory(directory):
    (directory / "model.safetensors.index.json").unlink()
    (directory / "model.safetensors.index.json").mkdir()
    with pytest.raises(InputError, match=r"index.json: not a safetensors index"):
        Safetensors(directory)


def test_a_tensor_in_two_shards(directory):
    safetensors.numpy.save_file({name: TENSORS[name] for name in ("é", "layers.2", "b")}, directory / TWO)
    with pytest.raises(InputError, match=f"b is in .*{TWO} and in .*{ONE}; one of them is a leftover"):
        Safetensors(directory)


def test_a_single_file_comes_before_an_index(directory):
    """As in transformers."""
    shutil.copy(directory / ONE, directory / "model.safetensors")
    assert set(Safetensors(directory).shapes) == {"a", "b"}
