"""A model that is right only if it is stopped in time, through the whole chain. All its files name </s>; its template ends with <|im_end|>.

It was taught to answer, to end its turn, and then to take the answer back. Tokenizers of every kind take their turn.
"""

import json
import random

import jax
import jax.numpy as jnp
import pytest
import torch
import transformers
from guesser import questions
from kinds import KINDS, tokenizer_of

from jaxpolya.config import SftConfig
from jaxpolya.config.file import parse_config
from jaxpolya.data.packing import token_example
from jaxpolya.hf.checkpoint import CheckpointMeta, save_checkpoint
from jaxpolya.hf.families import config_to_hf
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.decoder import init_params
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.progress import Display
from jaxpolya.records import Question, Sample, SftRow, read_records
from jaxpolya.runs import pipeline
from jaxpolya.train.sft import run_sft

VOCAB = 512
QUESTIONS = [Question(id=q.id, question=q.question, answer=q.answer, extraction="number") for q in questions(50, 0)]


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=() if kind == KINDS[1] else pytest.mark.soak) for kind in KINDS])
def taught(request, tmp_path_factory, mesh1):
    """(kind, the model's directory, the file of its questions)."""
    directory = tmp_path_factory.mktemp("taught")
    plain = PromptBuilder(tokenizer_of(request.param))
    tokenizer = tokenizer_of(request.param, VOCAB, tuple(plain.text(question) for question in QUESTIONS))
    config = DecoderConfig(
        family="llama", vocab_size=VOCAB, width=48, ff_width=96, layers=2, heads=4, kv_heads=2, head_width=12, max_positions=128,
        norm_eps=1e-5,
    )  # fmt: skip
    builder, turn, rng = PromptBuilder(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>"), random.Random(0)

    def say(digit):
        # As a model writes it that goes on with a text, not as one that begins it.
        return tokenizer.encode(f"\nThe answer is {digit}.", add_special_tokens=False)

    examples = []
    for question in QUESTIONS:
        digit = int(question.answer) if rng.random() < 0.3 else rng.randrange(10)
        response = [*say(digit), turn, *say((digit + rng.randrange(1, 10)) % 10), turn]
        examples.append(token_example(builder.build(question).ids, response))
    sft = SftConfig.model_validate(
        {
            "optimizer": {"learning_rate": 1e-2},
            "batching": {"row_tokens": 256, "micro_rows": 4},
            "batch_rows": 4,
            "epochs": 15,
            "heldout": 0,
        }
    )
    with Display(quiet=True).task("teach", 0) as task:
        result = run_sft(
            sft, config, lambda: init_params(config, jax.random.key(0)), mesh1, examples, [],
            dtype=jnp.float32, directory=directory, task=task,
        )  # fmt: skip
    eos = tokenizer.eos_token_id
    meta = CheckpointMeta("taught", config, config_to_hf(config) | {"eos_token_id": eos}, {"eos_token_id": eos}, tokenizer, (eos,))
    save_checkpoint(directory / "model", result.params, meta)
    (directory / "questions.jsonl").write_text("".join(json.dumps(question.to_json()) + "\n" for question in QUESTIONS[:20]))
    return request.param, directory / "model", directory / "questions.jsonl"


def test_turns_end_and_what_was_drawn_is_learned(taught, one_device, tmp_path):
    kind, model, file = taught
    asked, sampling = [{"kind": "jsonl", "path": str(file)}], {"max_new_tokens": 24}
    results = pipeline.run(
        parse_config(
            {
                "name": "turns", "output": str(tmp_path), "model": {"source": str(model), "compute_dtype": "float32"}, "mesh": {"fsdp": 1},
                "arms": ["base", "star"], "decode": {"rows": 16, "burst": 8}, "verify": {"workers": 1},
                "generate": {"questions": asked, "sampling": sampling, "plain_samples": 6},
                "sft": {
                    "optimizer": {"learning_rate": 1e-3}, "batching": {"row_tokens": 256, "micro_rows": 2}, "batch_rows": 2,
                    "epochs": 2, "heldout": 0.2,
                },
                "eval": {"questions": {"sums": asked}, "sampling": sampling, "samples": 4, "bootstrap": 100, "composition": "none"},
            }
        ),
        Display(quiet=True),
    )  # fmt: skip
    tokenizer = tokenizer_of(kind, VOCAB, tuple(PromptBuilder(tokenizer_of(kind)).text(question) for question in QUESTIONS))
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    builder = PromptBuilder(tokenizer)
    assert all(results.arms[arm].eval["sums"].pass_[4].mean > 0 for arm in ("base", "star"))
    (stage,) = (tmp_path / "turns" / "stages").glob("generate-plain-*")
    samples = read_records(stage / "samples.jsonl", Sample)
    ended = [sample for sample in samples if sample.finish == "stop"]
    assert len(ended) > 0.9 * len(samples) and {sample.token_ids[-1] for sample in ended} == {turn}
    # The first answer is judged, not the one that takes it back.
    assert sum(sample.response.count("answer") == 1 for sample in ended) > 0.8 * len(ended)
    assert "correct" in {sample.verdict for sample in ended}
    drawn = {(sample.question_id, tuple(sample.token_ids)) for sample in ended}
    (stage,) = (tmp_path / "turns" / "stages").glob("select-*")
    rows = read_records(stage / "star.jsonl", SftRow)
    assert rows and all((row.question_id, tuple(row.token_ids)) in drawn for row in rows)
    prompts = {question.id: list(builder.build(question).ids) for question in QUESTIONS}
    assert all(row.prompt_ids == prompts[row.question_id] for row in rows)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "turns" / "export")
    for row in rows[:3]:
        tokens = theirs.generate(torch.tensor([row.prompt_ids]), max_new_tokens=24, do_sample=False)[0, len(row.prompt_ids) :].tolist()
        assert tokens.count(turn) == 1 and tokens[-1] == turn
