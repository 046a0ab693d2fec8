"""Checkpoints in an object store: fsspec's store in memory stands in for `gs://`, below etils' paths, which are the real ones."""

import io
import shutil

import fsspec
import jax
import numpy as np
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from jaxpolya.errors import InputError, MachineError
from jaxpolya.hf import checkpoint as checkpoint_module
from jaxpolya.hf import directory as directory_module
from jaxpolya.hf import export as export_module
from jaxpolya.hf.checkpoint import export_checkpoint, fingerprint, inspect_checkpoint, load_checkpoint, save_checkpoint


class Counted(io.BytesIO):
    """An object that is read; notes how much."""

    name = ""

    def read(self, size=-1):
        data = super().read(size)
        Store.reads.append((self.name, len(data)))
        return data


class Store(MemoryFileSystem):
    """Objects by name."""

    protocol = ("gs", "gcs")
    reads: list[tuple[str, int]] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("gs://").strip("/")

    def _open(self, path, mode="rb", **kwargs):
        file = super()._open(path, mode, **kwargs)
        if mode != "rb":
            return file
        counted = Counted(file.getvalue())
        counted.name = path
        return counted


@pytest.fixture(scope="module", autouse=True)
def store():
    fsspec.register_implementation("gcs", Store, clobber=True)


@pytest.fixture
def bucket(request):
    return f"gs://bucket/{request.node.name.translate(str.maketrans('[]', '--'))}"  # brackets are patterns to fsspec


def upload(directory, target: str) -> None:
    for path in directory.iterdir():
        epath.Path(path).copy(epath.Path(target) / path.name)


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint, mesh1):
    return load_checkpoint(str(tiny_checkpoint), mesh=mesh1)


def assert_same_params(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_directory_goes_out_and_comes_in(tiny, bucket, tmp_path, mesh8):
    export_checkpoint(bucket, tiny.params, tiny.meta, max_shard_size="40KB", card="# Card")
    export_checkpoint(tmp_path / "local", tiny.params, tiny.meta, max_shard_size="40KB", card="# Card")
    names = {path.name for path in (tmp_path / "local").iterdir()}
    assert {path.name for path in epath.Path(bucket).iterdir()} == names
    for name in names:
        assert (epath.Path(bucket) / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    back = load_checkpoint(bucket, mesh=mesh8)
    assert_same_params(back.params, tiny.params)
    assert (back.config, back.stop_ids, back.meta.files) == (tiny.config, tiny.stop_ids, tiny.meta.files)
    assert back.tokenizer.chat_template == tiny.tokenizer.chat_template
    assert fingerprint(bucket) == fingerprint(str(tmp_path / "local"))
    export_checkpoint(bucket, tiny.params, tiny.meta)  # replaces the first
    assert not list(epath.Path(bucket).glob("model-*"))


def test_only_what_is_needed_is_fetched(tiny, bucket, mesh8):
    export_checkpoint(bucket, tiny.params, tiny.meta)
    weights, size = "/" + bucket.removeprefix("gs://") + "/model.safetensors", (epath.Path(bucket) / "model.safetensors").stat().length
    Store.reads.clear()
    inspect_checkpoint(bucket)
    header = sum(count for path, count in Store.reads if path == weights)
    assert 0 < header < size / 10
    Store.reads.clear()
    load_checkpoint(bucket, mesh=mesh8)
    assert sum(count for path, count in Store.reads if path == weights) == size, "no byte is fetched twice"


def test_what_is_wrong_is_named(tiny_checkpoint, bucket):
    with pytest.raises(InputError, match=f"no checkpoint at {bucket}"):
        inspect_checkpoint(bucket)
    upload(tiny_checkpoint, bucket)
    weights = epath.Path(bucket) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(InputError, match=f"{weights}: not a whole safetensors file"):
        inspect_checkpoint(bucket)
    weights.unlink()
    with pytest.raises(InputError, match=f"{bucket} is not a checkpoint: it lacks model.safetensors"):
        inspect_checkpoint(bucket)
    with pytest.raises(InputError, match=r"^az://somewhere/model: .*adlfs"):
        inspect_checkpoint("az://somewhere/model")


def test_a_store_that_can_t_be_reached_is_told(bucket, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no credentials\nand a page more")

    monkeypatch.setattr(Store, "isdir", refuse)
    with pytest.raises(InputError, match=rf"{bucket} can't be reached \(RuntimeError: no credentials\): check"):
        inspect_checkpoint(bucket)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), MachineError), (InputError("broken"), InputError)],
    ids=["killed", "full", "refused"],
)
def test_a_broken_off_export_leaves_what_was_there(tiny, bucket, monkeypatch, error, raised):
    def broken_off(*_):
        raise error

    directory = epath.Path(bucket)
    aside = directory.parent / f".{directory.name}.partial"
    export_checkpoint(bucket, tiny.params, tiny.meta, card="the old one")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(export_module, "write_small_files", broken_off)
        with pytest.raises(raised):
            export_checkpoint(bucket, tiny.params, tiny.meta, max_shard_size="40KB", card="the new one")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert aside.exists() == (raised is KeyboardInterrupt)
    export_checkpoint(bucket, tiny.params, tiny.meta, card="the new one")
    assert (directory / "README.md").read_text() == "the new one"
    assert not aside.exists()


def test_a_directory_that_is_half_in_place_is_told(tiny, bucket, monkeypatch):
    export_checkpoint(bucket, tiny.params, tiny.meta)
    opened = Store._open

    def refuse(self, path, mode="rb", **kwargs):
        if mode == "wb" and path == bucket.removeprefix("gs:/") + "/model.safetensors":
            raise OSError(5, "Input/output error")
        return opened(self, path, mode, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_open", refuse)
        with pytest.raises(
            MachineError, match=f"{bucket} can't be written: Input/output error; what was there may be gone; write it again"
        ):
            export_checkpoint(bucket, tiny.params, tiny.meta)
    with pytest.raises(InputError, match="was interrupted"):
        inspect_checkpoint(bucket)
    export_checkpoint(bucket, tiny.params, tiny.meta)
    assert inspect_checkpoint(bucket).config == tiny.config


def test_a_bucket_is_no_directory(tiny, bucket):
    export_checkpoint(bucket, tiny.params, tiny.meta)
    with pytest.raises(InputError, match=r"gs://bucket is a whole bucket; name a directory in it, such as gs://bucket/model"):
        export_checkpoint("gs://bucket", tiny.params, tiny.meta)
    assert inspect_checkpoint(bucket).config == tiny.config


def test_our_own_layout_is_copied_with_its_directories(tiny, tmp_path, mesh1, monkeypatch):
    """Orbax has a client of its own for object stores, which no store in memory can stand in for: here a directory does."""
    monkeypatch.setattr(directory_module, "is_remote", lambda path: True)
    for _ in range(2):
        save_checkpoint(tmp_path / "saved", tiny.params, tiny.meta)
        assert_same_params(load_checkpoint(str(tmp_path / "saved"), mesh=mesh1).params, tiny.params)
        assert [path.name for path in tmp_path.iterdir()] == ["saved"]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_small_files", full)
    with pytest.raises(MachineError, match="nothing was changed there"):
        save_checkpoint(tmp_path / "saved", jax.tree.map(jax.numpy.zeros_like, tiny.params), tiny.meta)
    assert_same_params(load_checkpoint(str(tmp_path / "saved"), mesh=mesh1).params, tiny.params)


def test_a_gguf_file_is_fetched_once(bucket, tmp_path, tiny_config, monkeypatch):
    from jaxpolya.hf.directory import local_file

    (tmp_path / "model.gguf").write_bytes(b"GGUF and the rest")
    upload(tmp_path, bucket)
    there = epath.Path(bucket) / "model.gguf"
    local = local_file(there)
    assert local.read_bytes() == b"GGUF and the rest" and local_file(epath.Path(bucket) / "model.gguf") == local
    with pytest.raises(InputError, match="not a whole GGUF file"):
        inspect_checkpoint(str(there))
    shutil.rmtree(local.parent)
