"""What is known of a checkpoint's licence and ancestors goes with it, and what isn't known is no obstacle."""

import gguf
import huggingface_hub
import pytest
from etils import epath
from huggingface_hub import errors

from jaxpolya.errors import InputError
from jaxpolya.hf import origin
from jaxpolya.hf.checkpoint import load_checkpoint, save_checkpoint
from jaxpolya.hf.origin import origin_of
from jaxpolya.hf.source import Location

PAGE = """---
license: other
license_name: gemma
license_link: LICENSE
base_model: google/gemma-3-270m
tags: [x]
---
# A model
"""


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """A directory that counts as a checkpoint without being one."""
    monkeypatch.setattr(origin, "locate", lambda *_, **__: Location("safetensors", epath.Path(tmp_path)))
    return tmp_path


def test_a_directory_s_own_page(somewhere):
    assert origin_of("x") == {}
    (somewhere / "README.md").write_text(PAGE)
    assert origin_of("x") == {
        "base_model": "google/gemma-3-270m", "license": "other", "license_name": "gemma", "license_link": "LICENSE",
    }  # fmt: skip


@pytest.mark.parametrize(
    "page", [b"# No front matter", b"---\n- a list\n---\n", b"---\n{torn\n---\n", b"\xff\xfe", b"---\nmodel-index: 3\n---\n"]
)
def test_a_page_that_says_nothing(somewhere, page):
    (somewhere / "README.md").write_bytes(page)
    assert origin_of("x") == {}


def test_a_gguf_file_s_metadata(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.license", "llama3.2")
    writer.add_string("general.license.link", "https://example.org/licence")

    class File:
        def __init__(self, path):
            self.metadata = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items() if field.types}

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    monkeypatch.setattr(origin, "GGUFFile", File)  # which wants a whole model
    assert origin_of(str(path)) == {"license": "llama3.2", "license_link": "https://example.org/licence"}


def test_a_name_on_the_hub_is_its_own_ancestor(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "locate", lambda *_, **__: Location("safetensors", epath.Path(tmp_path), commit="0123abc"))

    def download(name, file, *, revision):
        assert (name, file, revision) == ("google/gemma-3-270m-it", "README.md", "0123abc")
        (tmp_path / "page.md").write_text(PAGE)
        return str(tmp_path / "page.md")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert origin_of("google/gemma-3-270m-it", "v1") == {
        "base_model": "google/gemma-3-270m-it", "license": "other", "license_name": "gemma", "license_link": "LICENSE",
    }  # fmt: skip

    def unreachable(*_, **__):
        raise errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    assert origin_of("google/gemma-3-270m-it", "v1") == {"base_model": "google/gemma-3-270m-it"}


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        origin_of(str(tmp_path / "none"))


def test_our_own_layout_keeps_what_was_known(tiny_checkpoint, tmp_path, mesh1):
    checkpoint = load_checkpoint(str(tiny_checkpoint), mesh=mesh1)
    known = {"base_model": "somebody/model", "license": "apache-2.0"}
    save_checkpoint(tmp_path / "ours", checkpoint.params, checkpoint.meta, origin=known)
    assert origin_of(str(tmp_path / "ours")) == known
    save_checkpoint(tmp_path / "unknown", checkpoint.params, checkpoint.meta)
    assert origin_of(str(tmp_path / "unknown")) == {}
