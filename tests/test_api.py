"""The Python lines of the README, on a tiny checkpoint."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
import yaml

import jaxpolya
from jaxpolya.config import MeshConfig
from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.verify.pool import Pool


@pytest.fixture(scope="module")
def model(tiny_checkpoint, mesh1):
    return jaxpolya.load(str(tiny_checkpoint), mesh=mesh1)


def test_importing_the_package_imports_no_jax():
    code = """
import sys
import jaxpolya
assert jaxpolya.verify_response("The answer is 12.", answer="12").verdict == "correct"
print("jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "False"


def test_names():
    assert all(getattr(jaxpolya, name).__doc__ for name in jaxpolya.__all__) and set(jaxpolya.__all__) <= set(dir(jaxpolya))
    with pytest.raises(AttributeError, match=r"jaxpolya has no lode; it has .*\bload, "):
        jaxpolya.lode  # noqa: B018


@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=1), MeshConfig(replica=2, fsdp=2, tensor=2)], ids=["1", "8"])
def test_logits_are_those_of_transformers(tiny_checkpoint, mesh):
    import jax

    devices = jax.devices()[: 1 if mesh.fsdp == 1 else 8]
    model = jaxpolya.load(str(tiny_checkpoint), mesh=jaxpolya.make_mesh(mesh, devices))
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    rows = [[5, 9, 260, 17, 41, 8], [7, 7, 1]]
    ours = model.logits(rows)
    assert ours.shape == (2, 6, 300) and ours.dtype == np.float32
    for i, row in enumerate(rows):
        with torch.no_grad():
            expected = oracle(torch.tensor([row])).logits[0].numpy()
        np.testing.assert_allclose(ours[i, : len(row)], expected, atol=1e-4)


def test_a_model_that_gives_nan_is_named(model):
    blocks = model.checkpoint.params["blocks"]
    name = next(iter(blocks))
    params = model.checkpoint.params | {"blocks": blocks | {name: blocks[name].at[0].set(np.nan)}}
    broken = dataclasses.replace(model, checkpoint=dataclasses.replace(model.checkpoint, params=params))
    with pytest.raises(InputError, match=rf"^{model.checkpoint.meta.source}: its logits are not finite"):
        broken.logits([[1, 2, 3]])
    for temperature in (0.0, 1.0):
        with pytest.raises(InputError, match=rf"^{model.checkpoint.meta.source}: its log-probs are not finite"):
            broken.generate(["What is 3 * 4?"], max_new_tokens=4, temperature=temperature)


def test_samples_carry_the_log_probs_of_the_model(model):
    prompts = ["What is 3 * 4?", "What is 12 plus 30?"]
    answers = model.generate(prompts, samples=3, max_new_tokens=12, seed=1)
    assert [len(group) for group in answers] == [3, 3]
    assert len({tuple(answer.tokens) for group in answers for answer in group}) == 6
    tokenizer = model.checkpoint.tokenizer
    for prompt, group in zip(prompts, answers, strict=True):
        asked = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=True, add_generation_prompt=True)["input_ids"]
        for index, answer in enumerate(group):
            assert answer.index == index and len(answer.tokens) == len(answer.logprobs) <= 12
            logits = model.logits([[*asked, *answer.tokens]])[0, len(asked) - 1 : -1].astype(np.float64)
            logps = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            np.testing.assert_allclose(answer.logprobs, logps[np.arange(len(answer.tokens)), answer.tokens], atol=1e-4)


def test_seeds_address_the_randomness(model):
    def tokens(**changes):
        drawn = model.generate(["What is 3 * 4?", "What is 5?"], **{"samples": 2, "max_new_tokens": 8, "seed": 3} | changes)
        return [[answer.tokens for answer in group] for group in drawn]

    first = tokens()
    assert tokens() == first
    assert tokens(rows=2) == first  # how many are decoded side by side is not a question of chance
    assert tokens(seed=4) != first


def test_greedy_is_the_argmax(model):
    ((first, second),) = model.generate(["The answer is"], samples=2, max_new_tokens=8, temperature=0, chat="never")
    assert first.tokens == second.tokens
    asked = model.checkpoint.tokenizer.encode("The answer is", add_special_tokens=False)
    logits = model.logits([[*asked, *first.tokens]])[0, len(asked) - 1 : -1]
    assert logits.argmax(axis=-1).tolist() == first.tokens


def test_stop_strings_may_be_special_tokens(model):
    """Random weights write all kinds of tokens."""
    asked = {"prompts": ["What is 3 * 4?"], "samples": 16, "max_new_tokens": 40, "temperature": 2.0, "seed": 5}
    tokenizer = model.checkpoint.tokenizer
    turn = tokenizer.convert_tokens_to_ids("<|turn|>")
    (free,), (stopped,) = model.generate(**asked), model.generate(**asked, stop=["<|turn|>"])
    assert any(turn in answer.tokens for answer in free)
    for before, after in zip(free, stopped, strict=True):
        cut = turn in before.tokens
        assert after.tokens == (before.tokens[: before.tokens.index(turn) + 1] if cut else before.tokens)
        assert after.text == before.text.partition("<|turn|>")[0] and after.finish == ("stop" if cut else before.finish)


def test_what_doesn_t_fit_is_said(model, tmp_path):
    with pytest.raises(InputError, match="exceed the model's 256 positions"):
        model.generate(["What?"], max_new_tokens=300)
    with pytest.raises(InputError, match="no checkpoint at"):
        jaxpolya.load(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompts": []}, "prompts: list should have at least 1 item"),
        ({"prompts": "What"}, "prompts: input should be a valid list, not 'What'"),
        ({"prompts": ["\ud800"]}, "prompts: .* surrogates not allowed"),
        ({"samples": 0}, "samples: input should be greater than 0"),
        ({"temperature": -1}, "temperature: input should be greater than or equal to 0, not -1"),
        ({"seed": 2**70}, "seed: input should be less than"),
        ({"stop": "end"}, "stop: input should be a valid list"),
        ({"rows": 0}, "rows: input should be greater than 0"),
        ({"chat": "maybe"}, "chat: 'maybe' is not one of"),
    ],
)
def test_arguments_that_generate_refuses(model, arguments, says):
    with pytest.raises(ConfigError, match=f"generate: {says}"):
        model.generate(**{"prompts": ["What?"]} | arguments)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "there is no row"),
        ([[1], []], "row 1 is not a list of token ids .*or is empty"),
        ([1, 2], "row 0 is not a list of token ids"),
        (["What"], "row 0 is not a list of token ids"),
        ([[1, 300]], "row 0 has ids from 1 to 300; the model's go from 0 to 299"),
        ([[-1]], "row 0 has ids from -1"),
        ([[1] * 257], "row 0 has 257 tokens, and the model 256 positions"),
    ],
)
def test_rows_that_have_no_logits(model, rows, says):
    with pytest.raises(InputError, match=says):
        model.logits(rows)


def test_what_load_does_not_take(tiny_checkpoint):
    with pytest.raises(ConfigError, match="'bf16' is not float32 or bfloat16"):
        jaxpolya.load(str(tiny_checkpoint), dtype="bf16")
    with pytest.raises(ConfigError, match=r"load: decode: attention: 'cudnn' is not one of 'auto', 'xla' or 'pallas'"):
        jaxpolya.load(str(tiny_checkpoint), decode_attention="cudnn")
    with pytest.raises(ConfigError, match="pallas runs on NVIDIA GPUs, and this is a CPU"):
        jaxpolya.load(str(tiny_checkpoint), decode_attention="pallas")


@pytest.mark.parametrize(
    ("response", "reference", "verdict"),
    [
        ("3 * 4 = 12, so the answer is 12.", {"answer": "12"}, "correct"),
        ("The answer is \\boxed{11}.", {"answer": "12", "extraction": "boxed"}, "wrong"),
        ("I don't know.", {"answer": "12"}, "unparseable"),
        ("The answer is 4.", {"answer": 4}, "correct"),
        ("The answer is 1/4.", {"answer": 0.25}, "correct"),
        ("The answer is (B).", {"kind": "choice", "answer": "B", "choices": ["red", "blue"]}, "correct"),
    ],
)
def test_verify_response(response, reference, verdict):
    assert jaxpolya.verify_response(response, **reference).verdict == verdict


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ({"answer": ""}, "needs an answer"),
        ({"answer": ["12"]}, "answer must be a string or a number, not list"),
        ({"answer": "12", "kind": "maths"}, "'maths' is not a kind of answer"),
        ({"answer": "12", "extraction": "last"}, "'last' is not a style of extraction"),
        ({"answer": "12", "response": None}, "response must be a string"),
    ],
)
def test_a_response_needs_a_reference(reference, says):
    with pytest.raises(InputError, match=says):
        jaxpolya.verify_response(**{"response": "The answer is 12."} | reference)


def test_what_no_signature_takes_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="unevaluated 'maybe' is not one of refuse, accept"):
        jaxpolya.verify_response("The answer is 12.", answer="12", unevaluated="maybe")
    with pytest.raises(ConfigError, match=r"run: a YAML file or a RunConfig is needed, not \{'name': 'x'\}"):
        jaxpolya.run({"name": "x"})
    with pytest.raises(ConfigError, match="load: a path or a hub name is needed, not None"):
        jaxpolya.load(None)


def agrees(question, answer) -> bool:
    """A kind of question in person."""
    return answer.casefold() == question.answer


def test_many_responses_are_judged_in_their_order():
    choice = {"answer": "B", "choices": ["red", "blue"]}
    rows = [
        {"response": "The answer is 4.", "answer": 4},
        {"response": "Blue: the answer is (B).", **choice},
        {"response": "no idea", "answer": "4"},
        {"response": "The answer is 5.", "answer": 4, "id": "a file's"},
        {"response": "The answer is YES.", "answer": "yes", "verifier": agrees},
        {"response": "The answer is 1 + 1.", "question": "What is 1 + 1?", "answer": 2},
    ]
    with Pool(workers=1, memory_mb=32_768) as pool:  # this file imports torch, whose CUDA builds are large
        verdicts = jaxpolya.verify_responses(rows, pool=pool)
        assert [v.verdict for v in verdicts] == ["correct", "correct", "unparseable", "wrong", "correct", "wrong"]
        again = jaxpolya.verify_responses((row for row in rows[4:]), kind=agrees, pool=pool)
        assert [v.verdict for v in again] == ["correct", "wrong"]
    assert jaxpolya.verify_responses([]) == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"response": "1", "answer": 1}, {"response": "1"}], "row 1: a math item needs an answer"),
        ([{"response": 1, "answer": 1}], "row 0: response must be a string, not int"),
        ([{"response": "1", "answer": 1, "kind": "some/file.py:kind"}], "row 0: 'some/file.py:kind' is not a kind of answer"),
        (["The answer is 1."], "row 0: a dictionary with response and answer is needed, not 'The answer"),
        ({"response": "1", "answer": 1}, "a list of dictionaries"),
    ],
)
def test_rows_that_no_response_could_answer_are_named(rows, says):
    with pytest.raises(InputError, match=f"verify_responses.*{says}"):
        jaxpolya.verify_responses(rows)


def test_run(tiny_run, tmp_path):
    tree = tiny_run(arms=["base", "star"], export=False)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert jaxpolya.run(path, only="generate", quiet=True) is None
    assert list(tmp_path.glob("runs/tiny/stages/generate-plain-*/manifest.json"))
    results = jaxpolya.run(parse_config(tree), quiet=True)
    assert results is not None and set(results.arms) == {"base", "star"}
    assert jaxpolya.run(str(path), overrides=["arms=[base]"], quiet=True).best == "base"
    assert set(jaxpolya.run(parse_config(tree), overrides=["arms=[star]"], quiet=True).arms) == {"star"}
    with pytest.raises(ConfigError, match="did you mean steps"):
        jaxpolya.run(path, overrides=["rl.setps=1"])
