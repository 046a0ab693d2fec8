"""What an export's small files say of the end of a response, and to other versions of transformers; all else goes out as it came in."""

import json
import shutil

import pytest
import torch
import transformers
from families import CASES, their_model
from kinds import CHATML, tokenizer_of

from jaxpolya.errors import CheckError
from jaxpolya.hf.check_export import compare_export
from jaxpolya.hf.checkpoint import export_checkpoint, inspect_checkpoint, load_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model after a fine-tune: ChatML, while all files name </s> as eos, as transformers 5 saves it."""
    directory = tmp_path_factory.mktemp("base") / "theirs"
    tokenizer = tokenizer_of("byte-level", 300)
    model = their_model("llama: llama3 rope", vocab_size=320, eos_token_id=tokenizer.eos_token_id)
    model.generation_config = transformers.GenerationConfig(eos_token_id=tokenizer.eos_token_id, do_sample=True, temperature=0.6)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base, tmp_path / "copy")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def read(path):
    return json.loads(path.read_text())


def exported(directory, mesh, **options):
    checkpoint = load_checkpoint(str(directory), mesh=mesh)
    export_checkpoint(directory.parent / "out", checkpoint.params, checkpoint.meta, **options)
    return checkpoint, directory.parent / "out"


def test_generate_stops_where_we_stop(copy, mesh1):
    checkpoint, out = exported(copy, mesh1)
    end, turn = checkpoint.tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert checkpoint.stop_ids == (end, turn)
    assert read(out / "generation_config.json") == read(copy / "generation_config.json") | {"eos_token_id": [end, turn]}
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.eos_token == "<|im_end|>"
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    prompt = torch.tensor([tokenizer.encode("Why?")])

    def write(ids, scores):
        """A word, another one, and then the end of a turn for ever."""
        scores = torch.full_like(scores, -torch.inf)
        scores[:, 40 if ids.shape[1] < prompt.shape[1] + 2 else turn] = 0.0
        return scores

    tokens = model.generate(prompt, max_new_tokens=8, logits_processor=[write])[0, prompt.shape[1] :]
    assert tokens.tolist() == [40, 40, turn]
    again = inspect_checkpoint(str(out))
    assert set(again.stop_ids) == {end, turn} and again.tokenizer.chat_template == checkpoint.tokenizer.chat_template


def test_the_check_compares_what_ends_a_response(copy, mesh1):
    checkpoint, out = exported(copy, mesh1, dtype="float32")
    compare_export(out, checkpoint, mesh1)
    before = (out / "generation_config.json").read_bytes()
    edit(out / "generation_config.json", eos_token_id=checkpoint.stop_ids[0])
    with pytest.raises(CheckError, match=r"transformers' generate ends a response at \[\d+\], and ours end at \[\d+, \d+\]"):
        compare_export(out, checkpoint, mesh1)
    (out / "generation_config.json").write_bytes(before)
    edit(out / "tokenizer_config.json", eos_token="</s>")
    with pytest.raises(CheckError, match="has another eos_token_id"):
        compare_export(out, checkpoint, mesh1)


def test_files_that_say_it_already_are_left_alone(copy, mesh1):
    turn, end = inspect_checkpoint(str(copy)).tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    edit(copy / "tokenizer_config.json", eos_token="<|im_end|>", tokenizer_class="PreTrainedTokenizerFast")
    edit(copy / "generation_config.json", eos_token_id=[turn, end])
    _, out = exported(copy, mesh1)
    for name in ("tokenizer_config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (copy / name).read_bytes(), name


def test_a_missing_generation_config_is_written(copy, mesh1):
    (copy / "generation_config.json").unlink()
    checkpoint, out = exported(copy, mesh1)
    assert set(read(out / "generation_config.json")["eos_token_id"]) == set(checkpoint.stop_ids)


def test_a_template_that_writes_eos_keeps_it(copy, mesh1):
    (copy / "chat_template.jinja").write_text(CHATML + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}")
    checkpoint, out = exported(copy, mesh1)
    assert read(out / "tokenizer_config.json")["eos_token"] == "</s>" and len(checkpoint.stop_ids) == 2
    compare_export(out, checkpoint, mesh1)


def test_older_files_of_special_tokens_say_the_same(copy, mesh1):
    (copy / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>", "lstrip": False}, "bos_token": "<s>"}))
    _, out = exported(copy, mesh1)
    assert read(out / "special_tokens_map.json") == {"eos_token": {"content": "<|im_end|>", "lstrip": False}, "bos_token": "<s>"}


def test_code_of_a_tokenizer_is_not_named(copy, mesh1):
    edit(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.TheirTokenizer", None]}, tokenizer_class="TheirTokenizer")
    _, out = exported(copy, mesh1)
    written = read(out / "tokenizer_config.json")
    assert "auto_map" not in written and written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert transformers.AutoTokenizer.from_pretrained(out).encode("Why?")


@pytest.mark.parametrize("name", ["TokenizersBackend", "PythonBackend", "LlamaTokenizer", "GPT2TokenizerFast"])
def test_tokenizer_classes_are_those_of_every_version(copy, mesh1, name):
    edit(copy / "tokenizer_config.json", tokenizer_class=name, extra_special_tokens=["<|im_start|>"])
    _, out = exported(copy, mesh1)
    written = read(out / "tokenizer_config.json")
    assert written["tokenizer_class"] == ("PreTrainedTokenizerFast" if "Backend" in name else name)
    assert written["additional_special_tokens"] == ["<|im_start|>"] and "extra_special_tokens" not in written


@pytest.mark.parametrize("case", [case for case in CASES if "rope" in case or "pattern" in case])
def test_a_rotary_embedding_is_said_in_the_words_of_both_versions(case, tmp_path, mesh1):
    """Version 4 reads rope_theta, rope_scaling and Gemma's rope_local_base_freq, and takes its defaults where they are missing."""
    their_model(case).save_pretrained(tmp_path / "theirs")
    tokenizer_of("byte-level", 290).save_pretrained(tmp_path / "theirs")
    before = read(tmp_path / "theirs" / "config.json")
    assert "rope_parameters" in before and "rope_theta" not in before
    checkpoint, out = exported(tmp_path / "theirs", mesh1)
    assert inspect_checkpoint(str(out)).config == checkpoint.config
    after = read(out / "config.json")
    older = {key: after.pop(key, None) for key in ("rope_theta", "rope_scaling", "rope_local_base_freq")}
    assert after == before
    rope = before["rope_parameters"].get("full_attention", before["rope_parameters"])
    assert older["rope_theta"] == rope["rope_theta"]
    assert (older["rope_scaling"] or {"rope_type": "default"})["rope_type"] == rope["rope_type"]
    if "sliding_attention" in before["rope_parameters"]:
        assert older["rope_local_base_freq"] == before["rope_parameters"]["sliding_attention"]["rope_theta"]
    without = {key: value for key, value in after.items() if key != "rope_parameters"} | {k: v for k, v in older.items() if v is not None}
    (out / "config.json").write_text(json.dumps(without))
    assert inspect_checkpoint(str(out)).config == checkpoint.config
