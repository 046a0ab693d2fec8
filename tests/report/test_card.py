"""The model card: what the hub's own parser reads of it, and that its numbers are the report's."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard

from jaxpolya.report.card import checkpoint_card, run_card
from jaxpolya.report.page import findings
from jaxpolya.report.tables import eval_tables
from jaxpolya.results import Results

of = Results.model_validate

LOADED = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
```"""


def source(kind, name, **more):
    return {"kind": kind, "name": name, "limit": None, "skip": 0, **more}


@pytest.fixture
def whole(results):
    """Four arms with all that a run writes."""
    results["run"] |= {
        "fingerprint": "hub:HuggingFaceTB/SmolLM2-135M-Instruct@0123abc",
        "origin": {"license": "apache-2.0", "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "packages": {"jaxpolya": "0.1.0", "jax": "0.10.2", "flax": "0.12.8", "transformers": "5.23.0"},
        "commit": "6eeb1a36",
        "device": "8 × TPU v5e",
    }
    results["config"] = {
        "name": "demo",
        "model": {"source": "HuggingFaceTB/SmolLM2-135M-Instruct", "compute_dtype": "bfloat16", "system": "End with ```."},
        "generate": {"questions": [source("hub", "openai/gsm8k", subset="main"), source("jsonl", None, path="/home/me/own.jsonl")]},
        "rl": {
            "questions": [source("hub", "open-r1/DAPO-Math-17k"), source("hub", "openai/gsm8k")],
            **{"algorithm": "dapo", "prompts": 32, "group": 16, "sampling": {"max_new_tokens": 3072}},
        },
        "eval": {
            "questions": {"chain_sum": [source("reasoning_gym", "chain_sum", params={"min_terms": 2})], "held_out": [source("hub", "a/b")]},
            "sampling": {"max_new_tokens": 512, "temperature": 0.0, "stop": []},
        },
    }
    results["best"] = "polya+rl"
    return results


def rows(text, arm):
    return [line for line in text.splitlines() if line.startswith(f"| {arm} |")]


def test_the_hub_reads_its_front_matter(whole):
    card = ModelCard(run_card(of(whole), "polya+rl"))
    assert card.data.to_dict() == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "datasets": ["openai/gsm8k", "open-r1/DAPO-Math-17k"],  # what it was evaluated on, and local files, are no such data sets
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["jaxpolya", "polya", "dapo"],
    }
    assert card.text.startswith("\n# demo: polya+rl\n") and LOADED in card.text
    assert "each along another of Pólya's heuristics, then trained by reinforcement learning" in card.text
    assert not re.search(r"\bNone\b|\bnan\b", card.text)


def test_its_numbers_are_those_of_the_report(whole):
    card = run_card(of(whole), "star+rl")
    for table in eval_tables(of(whole)):
        assert f"**{table.title}**" in card
        means = {row[0].text: [(cell.text, cell.interval) for cell in row] for row in table.rows}
        shown = {arm: rows(card.partition(f"**{table.title}**")[2], arm)[0] for arm in ("base", "star+rl")}
        for arm, line in shown.items():
            assert all(mean in line and interval in line for mean, interval in means[arm])
    assert not rows(card, "polya+rl") and not rows(card, "rl"), "other arms are the report's"
    paired = whole["arms"]["star+rl"]["eval"]["held_out"]["versus_base"]["1"]
    (line,) = [line for line in rows(card, "held\\_out") + rows(card, "held_out") if f"{100 * paired['mean']:+.1f}".lstrip("+-") in line]
    assert f"{100 * paired['high']:+.1f}" in line
    assert findings(of({"run": whole["run"], "arms": {arm: whole["arms"][arm] for arm in ("base", "star+rl")}})) in card


@pytest.mark.parametrize(
    ("arm", "learned", "heuristics", "says"),
    [
        ("base", "", False, "without training"),
        ("rl", "reinforcement learning: 40 questions", False, "Instruct`, trained by reinforcement learning"),
        ("star+rl", "mid-training: 7,112 questions", False, "one correct solution to each question that it wrote itself (STaR), then"),
        ("polya+rl", "mid-training: 7,112 questions", True, "several correct solutions"),
    ],
)
def test_an_arm_tells_of_its_own_data_alone(whole, arm, learned, heuristics, says):
    card = run_card(of(whole), arm)
    assert learned in card and says in card
    assert ("## Data" in card) == ("## Training" in card) == bool(learned)
    assert bool(rows(card, "analogy")) == heuristics
    assert bool(rows(card, "plain")) == (arm == "star+rl")
    assert ("## Contamination" in card) == (arm in ("star+rl", "polya+rl")), "only those learned from questions that were asked too"
    assert ("flatters it" in card) == (arm == whole["best"])
    assert "`chain_sum` (reasoning_gym, skip 0, params {min_terms: 2})" in card and "temperature 0.0, in bfloat16." in card
    assert "/home/me/own.jsonl" not in card.partition("<details>")[0], "a file's name says enough"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reward": "correct"}, "with a verifier's verdicts as rewards"),
        ({"reward": "/home/me/reward.py:reward"}, "with rewards that `reward.py:reward` gave"),
        ({"reward": "verdict", "replay": "/home/me/runs/other"}, "on recorded rollouts."),
    ],
)
def test_what_it_was_paid_for_is_said(whole, settings, says):
    whole["config"]["rl"] |= settings
    assert f"trained by reinforcement learning {says}" in run_card(of(whole), "rl")


def test_what_users_bring_is_called_by_its_name(whole):
    own = {"kind": "python", "source": "/home/me/sums.py:sums", "arguments": {"digits": 3, "words": "/home/me/words.txt"}}
    copied = {"kind": "tfds", "name": "own/set", "data_dir": "~/tfds", "verifier": "/home/me/kind.py:Kind"}
    whole["config"]["rl"] |= {"questions": [own, copied, source("hub", "/home/me/set")], "algorithm": "/home/me/algorithm.py:mine"}
    text = run_card(of(whole), "rl").partition("<details>")[0]
    assert "`sums.py:sums` (python, arguments {digits: 3, words: words.txt})" in text
    assert "`own/set` (tfds, data_dir tfds, verifier kind.py:Kind)" in text and "`set` (hub" in text and "(`algorithm.py:mine`)" in text
    assert "/home/me" not in text


def test_an_arm_tells_of_its_own_audit_alone(whole):
    card = run_card(of(whole), "polya+rl")
    for stage in ("generate-polya", "rl-polya-rl", "eval-base-chain_sum", "eval-polya-rl-chain_sum"):
        assert rows(card, stage), stage
    assert "**Warning:** rl-polya-rl: 97.0%" in card and "it warns of 2 things" in card
    card = run_card(of(whole), "rl")
    assert rows(card, "eval-base-chain_sum") and not rows(card, "rl-polya-rl") and "Warning" not in card
    whole["config"]["verify"] = {"math": {"unevaluated": "accept"}}
    assert "**Warning:** answers that were not worked out were accepted" in run_card(of(whole), "rl")


def test_what_was_left_out_of_training_is_said(whole):
    whole["contamination"]["train"]["dropped"] = True
    assert "mid-training: 7,112 questions, of which 2 were left out" in run_card(of(whole), "polya+rl")


def test_the_whole_configuration_is_in_it(whole):
    text = run_card(of(whole), "rl").partition("<summary>The whole configuration</summary>\n\n")[2]
    fence, _, rest = text.partition("yaml\n")
    assert fence == "````", "longer than the backticks inside"
    assert yaml.safe_load(rest.partition(f"\n{fence}\n")[0]) == whole["config"]


def test_what_nobody_said_is_left_out(whole):
    whole["run"] |= {"origin": {}, "commit": None}
    whole["arms"].pop("base")
    for entry in whole["arms"]["rl"]["eval"].values():
        entry.pop("versus_base")
    card = ModelCard(run_card(of(whole), "rl"))
    assert card.data.base_model is None and card.data.license is None
    assert "licence" not in card.text and "ancestor" not in card.text and " minus base" not in card.text
    assert "from commit unknown" in card.text


def test_a_checkpoint_that_is_no_run_s():
    origin = {"license": "other", "license_name": "gemma", "license_link": "LICENSE", "base_model": ["a/one", "a/two"]}
    card = ModelCard(checkpoint_card("weights/gemma.gguf", "sha256:77", origin, "6eeb1a36"))
    assert card.data.to_dict() == origin | {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["jaxpolya"],
    }  # fmt: skip
    assert "# gemma.gguf\n" in card.text and LOADED in card.text
    for words in ("`weights/gemma.gguf`", "`sha256:77`", "a/one, a/two", "licence, as it says itself: gemma", "(commit 6eeb1a36)"):
        assert words in card.text
    assert "commit" not in checkpoint_card("a", "b", {}, None)
