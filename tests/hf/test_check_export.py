"""`--verify`: a sound export agrees with transformers, every mistake that one can make is found, and then nothing appears."""

import json

import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from families import EVERYTHING, their_model
from hosts import on_hosts

from jaxpolya.errors import CheckError
from jaxpolya.hf import check_export
from jaxpolya.hf.check_export import compare_export
from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.hf.families import iter_tensors

NORM = "model.layers.1.input_layernorm.weight"


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint, mesh1):
    return load_checkpoint(str(tiny_checkpoint), mesh=mesh1)


def verified(directory, checkpoint, mesh, damage=lambda directory: None, **options):
    """What the check says of an export that `damage(directory)` has changed."""
    agreements = []

    def check(written):
        damage(written)
        agreements.append(compare_export(written, checkpoint, mesh))

    export_checkpoint(directory, checkpoint.params, checkpoint.meta, check=check, **options)
    return agreements[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_sound_export_agrees(tiny, tmp_path, mesh1, dtype):
    agreement = verified(tmp_path / "out", tiny, mesh1, dtype=dtype, max_shard_size="20KB")
    assert agreement.tokens == tiny.config.max_positions > 100, "the prompt is no handful of tokens"
    assert agreement.difference < agreement.tolerance / 10 and agreement.same_argmax == agreement.tokens
    assert (tmp_path / "out" / "config.json").exists()
    assert "over 256 tokens" in str(agreement)


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gemma3_text"])
def test_families_agree_on_a_mesh(family, tmp_path, tiny_tokenizer, mesh8):
    their_model(f"{family}: {EVERYTHING}", **WHOLE_HEADS).save_pretrained(tmp_path / "theirs")
    tiny_tokenizer.save_pretrained(tmp_path / "theirs")
    checkpoint = load_checkpoint(str(tmp_path / "theirs"), mesh=mesh8)
    agreement = verified(tmp_path / "ours", checkpoint, mesh8, dtype="bfloat16")
    assert agreement.difference < agreement.tolerance / 10


WHOLE_HEADS = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
"""Odd heads don't go over two tensor shards."""


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(change):
    """A damage: `change(tensors)`."""

    def damage(directory):
        path = directory / "model.safetensors"
        tensors = safetensors.numpy.load_file(path)
        change(tensors)
        safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})

    return damage


def swap(tensors):
    one, other = (f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1))
    tensors[one], tensors[other] = tensors[other], tensors[one]


def forget_a_merge(directory):
    tree = json.loads((directory / "tokenizer.json").read_text())
    tree["model"]["merges"].pop(0)
    (directory / "tokenizer.json").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (rewrite(swap), "transformers gets other logits from what was written: logits differ by"),
        (rewrite(lambda tensors: tensors[NORM].__setitem__(0, 1.01)), "gets other logits"),
        (rewrite(lambda tensors: tensors[NORM].__setitem__(0, np.nan)), "gets other logits .* differ by nan"),
        (lambda directory: edit(directory / "config.json", rms_norm_eps=1e-4), "gets other logits"),
        (lambda directory: edit(directory / "config.json", rope_theta=10_500.0), "gets other logits"),
        (rewrite(lambda tensors: tensors.update(extra=tensors[NORM])), "finds unexpected keys in what was written: extra"),
        (rewrite(lambda tensors: tensors.update(extra=tensors.pop("lm_head.weight"))), "the files lack lm_head.weight"),
        (forget_a_merge, "tokenizer makes other tokens of the prompt"),
        (lambda directory: (directory / "chat_template.jinja").write_text("{{ messages }}"), "has another chat_template"),
        (lambda directory: edit(directory / "tokenizer_config.json", eos_token="<|pad|>"), "has another eos_token_id"),
        (lambda directory: (directory / "model.safetensors").write_bytes(b"torn"), "can't load what was written"),
        (lambda directory: edit(directory / "config.json", model_type="none"), r"can't load what was written \(\w+: "),
    ],
)
def test_mistakes_are_found_and_nothing_appears(tiny, tmp_path, mesh1, damage, says):
    with pytest.raises(CheckError, match=f"verify: .*{says}.*nothing was written"):
        verified(tmp_path / "out", tiny, mesh1, damage, dtype="float32")
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_stays(tiny, tmp_path, mesh1):
    export_checkpoint(tmp_path / "out", tiny.params, tiny.meta)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(CheckError):
        verified(tmp_path / "out", tiny, mesh1, rewrite(swap), dtype="float32")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_files_of_several_dtypes_agree(tiny, tmp_path, mesh1):
    """Rounding is each tensor's own: the second layer and the head are stored more coarsely than the rest."""

    def coarser(tensors):
        for name in tensors:
            if name.startswith(("model.layers.1.", "lm_head")):
                tensors[name] = tensors[name].astype(np.float16)

    agreement = verified(tmp_path / "out", tiny, mesh1, rewrite(coarser), dtype="float32")
    assert agreement.difference < agreement.tolerance / 10
    with pytest.raises(CheckError, match="gets other logits"):  # a rounding that the files' dtypes don't account for
        rounded = rewrite(lambda tensors: tensors.update({k: v.astype(np.float16).astype(np.float32) for k, v in tensors.items()}))
        verified(tmp_path / "other", tiny, mesh1, rounded, dtype="float32")


def test_the_bucket_s_files_are_compared(tiny, tmp_path, mesh1):
    export_checkpoint(tmp_path / "out", tiny.params, tiny.meta)

    class Bucket:
        def __str__(self):
            return "gs://bucket/out"

        __fspath__ = __str__

        def is_dir(self):
            return True

        def iterdir(self):
            return epath.Path(tmp_path / "out").iterdir()

    agreement = compare_export(Bucket(), tiny, mesh1)
    assert agreement.difference < agreement.tolerance


def test_a_row_for_every_data_shard(tiny_checkpoint, mesh1, mesh8):
    """Ours are the same logits on every mesh."""
    one, eight = (load_checkpoint(str(tiny_checkpoint), mesh=mesh) for mesh in (mesh1, mesh8))
    dtypes = {tensor.name: "BF16" for tensor, _, _ in iter_tensors(one.config)}
    logits = [check_export._our_logits(*arguments) for arguments in ((one, [1, 2, 3], dtypes, mesh1), (eight, [1, 2, 3], dtypes, mesh8))]
    assert logits[0].shape == (3, one.config.vocab_size)
    np.testing.assert_allclose(*logits, atol=1e-5)


HOST = """
import sys
import jax
process, port, source, target = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from jaxpolya.errors import CheckError
from jaxpolya.hf.check_export import compare_export
from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.config import MeshConfig
from jaxpolya.parallel.mesh import make_mesh
mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
checkpoint = load_checkpoint(source, mesh=mesh)
export_checkpoint(target, checkpoint.params, checkpoint.meta, check=lambda written: print(compare_export(written, checkpoint, mesh)))
def damaged(written):
    if process == 0:
        (written / "model.safetensors").write_text("torn")
    compare_export(written, checkpoint, mesh)
try:
    export_checkpoint(target + "-damaged", checkpoint.params, checkpoint.meta, check=damaged)
except CheckError as error:
    print("refused:", error)
"""


@pytest.mark.soak
def test_two_hosts_find_the_same(tiny_checkpoint, tmp_path):
    outputs = on_hosts(HOST, tiny_checkpoint, tmp_path / "out")
    one, other = ([line for line in out.splitlines() if not line.startswith("[Gloo]")] for out in outputs)
    assert one == other and "over 256 tokens" in one[0] and "refused: verify: transformers can't load" in one[1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
