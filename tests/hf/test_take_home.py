"""A directory that jaxpolya exports is one that any tool for Hugging Face checkpoints takes."""

import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from families import their_model

from jaxpolya.hf.checkpoint import export_checkpoint, load_checkpoint
from jaxpolya.report.card import LOADING, checkpoint_card

OURS = {"jaxpolya.json", "README.md"}
"""What we write beside what `save_pretrained` does."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, tiny_tokenizer):
    """A model as transformers saves it, with a generation config."""
    directory = tmp_path_factory.mktemp("home") / "theirs"
    model = their_model("qwen3: untied")
    model.generation_config = transformers.GenerationConfig(do_sample=True, temperature=0.7, eos_token_id=[0, 1], pad_token_id=2)
    model.save_pretrained(directory)
    tiny_tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def taken(theirs, mesh1):
    """The same model, brought in and taken home."""
    directory = theirs.parent / "taken"
    checkpoint = load_checkpoint(str(theirs), mesh=mesh1)
    card = checkpoint_card("somebody/tiny", "hub:somebody/tiny@0123abc", {"base_model": "somebody/tiny"}, None)
    export_checkpoint(directory, checkpoint.params, checkpoint.meta, card=card)
    return directory


def names(directory):
    return {path.name for path in directory.iterdir()}


def test_the_files_are_those_of_save_pretrained(theirs, taken):
    assert names(taken) == names(theirs) | OURS


def test_every_auto_class_takes_it(theirs, taken, tiny_tokenizer):
    def fields(directory):
        return transformers.AutoConfig.from_pretrained(directory).to_dict() | {"_name_or_path": "", "transformers_version": ""}

    assert fields(taken) == fields(theirs)
    generation = [transformers.GenerationConfig.from_pretrained(each).to_dict() for each in (taken, theirs)]
    assert generation[0] == generation[1] and generation[0]["temperature"] == 0.7
    conversation = [{"role": "user", "content": "12 plus 30?"}]
    tokenizer = transformers.AutoTokenizer.from_pretrained(taken)
    ids = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    assert ids.tolist()[0] == tiny_tokenizer.apply_chat_template(conversation, add_generation_prompt=True)["input_ids"]
    for auto in (transformers.AutoModel, transformers.AutoModelForCausalLM):
        ours, loading = auto.from_pretrained(taken, output_loading_info=True)
        assert not loading["missing_keys"]
        expected = auto.from_pretrained(theirs)
        assert ours.dtype == expected.dtype == torch.float32
        with torch.no_grad():
            np.testing.assert_array_equal(ours(ids)[0].numpy(), expected(ids)[0].numpy())


def test_a_pipeline_generates_with_it(taken):
    generator = transformers.pipeline("text-generation", model=str(taken), device="cpu")
    outputs = generator([{"role": "user", "content": "12 plus 30?"}], max_new_tokens=4)
    assert outputs[0]["generated_text"][-1]["role"] == "assistant"


@pytest.mark.parametrize("max_shard_size", ["50GB", "30KB"])
def test_the_hub_s_library_reads_its_tensors(theirs, tmp_path, mesh1, max_shard_size):
    checkpoint = load_checkpoint(str(theirs), mesh=mesh1)
    export_checkpoint(tmp_path / "out", checkpoint.params, checkpoint.meta, max_shard_size=max_shard_size, dtype="bfloat16")
    metadata = huggingface_hub.get_local_safetensors_metadata(tmp_path / "out")
    assert metadata.sharded == (max_shard_size == "30KB")
    assert metadata.parameter_count == {"BF16": transformers.AutoModelForCausalLM.from_pretrained(theirs).num_parameters()}
    assert set(metadata.weight_map) == set(huggingface_hub.get_local_safetensors_metadata(theirs).weight_map)


def test_the_three_lines_of_its_card_load_it(taken):
    card = huggingface_hub.ModelCard.load(taken / "README.md")
    assert card.data.base_model == "somebody/tiny" and LOADING in card.text and len(LOADING.splitlines()) == 3
    code = f"{LOADING}\nprint(type(model).__name__, len(tokenizer('12 + 30')['input_ids']) > 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=taken, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout == "Qwen3ForCausalLM True\n", done.stderr
