"""The configurations in configs/: they load, their sizes fit each other, and somebody tells the reader of them."""

from pathlib import Path

import pytest

from jaxpolya.config import HubSource
from jaxpolya.config.file import dump_config, load_config
from jaxpolya.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

# Rows of the hub sets that RL trains on, by (name, subset, split).
SIZES = {("openai/gsm8k", "main", "train"): 7473, ("open-r1/DAPO-Math-17k-Processed", "all", "train"): 17398}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return load_config(request.param)


def test_the_promised_configurations_are_there():
    assert {"smollm2_gsm8k", "llama3.2_3b_paper"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "1E-05", "0.00001"])
def test_numbers_with_exponents_are_numbers(text):
    config = load_config(ROOT / "configs/quickstart.yaml", [f"rl.optimizer.learning_rate={text}"])
    assert config.rl.optimizer.learning_rate == 1e-5


def test_a_commit_that_begins_like_a_number_is_a_text(tmp_path):
    quickstart = ROOT / "configs/quickstart.yaml"
    assert load_config(quickstart, ["model.revision=7e12f3ab90c4"]).model.revision == "7e12f3ab90c4"
    quoted = load_config(quickstart, ["model.revision='12e45678'"])
    (tmp_path / "resolved.yaml").write_text(dump_config(quoted))
    assert quoted.model.revision == load_config(tmp_path / "resolved.yaml").model.revision == "12e45678"
    with pytest.raises(ConfigError, match=r"not inf; a text that looks so wants quotes, .*--set \"model\.revision='…'\""):
        load_config(quickstart, ["model.revision=12e45678"])


def test_rl_rollouts_fit_their_rows(config):
    # A rollout that doesn't fit a packed row would be left out before it is asked.
    sampling = config.rl.sampling
    assert sampling.max_prompt_tokens is None or config.rl.batching.row_tokens >= sampling.max_prompt_tokens + sampling.max_new_tokens


def test_selected_responses_fit_sft_rows(config):
    # The bare question of an SFT row is no longer than the prompt with heuristic and exemplars that it was answered under.
    assert config.sft.batching.row_tokens > config.generate.sampling.max_new_tokens


def test_micro_batches_fit_the_mesh(config):
    # A free axis (−1) takes what devices are left, so only explicit ones can be checked here.
    shards = config.mesh.replica * config.mesh.fsdp
    if shards > 0:
        assert config.sft.batching.micro_rows % shards == 0
        assert config.rl.batching.micro_rows % shards == 0
        assert config.decode.rows % (shards * config.rl.group) == 0, "some rows of the engine would stay empty in RL"


def test_steps_are_one_epoch_of_known_sets(config):
    sources = config.rl.questions
    if not all(isinstance(source, HubSource) for source in sources):
        return
    questions = sum(_cut(source, SIZES[source.name, source.subset, source.split]) for source in sources)
    assert config.rl.steps == questions // config.rl.prompts  # a round asks no question twice


def test_stages_that_share_a_hub_set_do_not_share_questions(config):
    if config.generate is None or config.rl is None:
        return
    for first in config.generate.questions:
        for second in config.rl.questions:
            if isinstance(first, HubSource) and isinstance(second, HubSource) and first.name == second.name and first.split == second.split:
                assert first.shuffle == second.shuffle
                assert first.limit is not None and first.limit + first.skip <= second.skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_reader_is_told(path):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(path.name in page.read_text(encoding="utf-8") for page in pages if page.exists())


def _cut(source, size):
    left = size - source.skip
    return left if source.limit is None else min(left, source.limit)


def test_a_chat_template_is_told_what_is_its_own():
    told = load_config(ROOT / "configs/quickstart.yaml", ["model.chat_arguments={enable_thinking: false}"])
    assert told.model.chat_arguments == {"enable_thinking": False}
    with pytest.raises(ConfigError, match=r"chat_arguments: .*add_generation_prompt can't be set"):
        load_config(ROOT / "configs/quickstart.yaml", ["model.chat_arguments={add_generation_prompt: false}"])
