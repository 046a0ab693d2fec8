"""`jaxpolya eval` on a tiny model: a benchmark of one's own, with greedy responses, interrupted, and one model against another."""

import json

import pyarrow.parquet
import pytest
import yaml
from guesser import comparable, questions

from jaxpolya.config import RunConfig
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.progress import Display
from jaxpolya.records import Appender, Sample, write_records
from jaxpolya.runs import compare
from jaxpolya.runs.compare import Evaluation, compare_models, evaluate

ENTRY = {
    "key": "sums", "title": "Sums of digits", "verifier": "math", "extraction": "boxed",
    "sources": [{"kind": "hub", "name": "nobody/sums", "columns": {"question": "asks", "answer": "gives"}, "answer_after": "="}],
}  # fmt: skip
SETTINGS = {"eval.sampling.max_new_tokens": 16, "eval.samples": 4, "eval.greedy": True, "eval.bootstrap": 100}
MACHINE = {"mesh.fsdp": 1, "decode.rows": 16, "decode.burst": 8, "verify.workers": 1, "model.compute_dtype": "float32"}


@pytest.fixture
def asked(tmp_path, one_device):
    """A function (changes) → the evaluation of a made-up benchmark whose questions lie in a local directory, as if published."""
    registry = tmp_path / "own.yaml"
    registry.write_text(yaml.safe_dump({"benchmarks": [ENTRY]}))
    rows = [{"id": q.id, "asks": q.question, "gives": f"{q.question} = {q.answer}"} for q in questions(10, 3)]
    write_records(tmp_path / "copies" / "sums.jsonl", rows)

    def make(settings=None, **changes) -> Evaluation:
        settings = SETTINGS | MACHINE | {"output": str(tmp_path / "runs")} | (settings or {})
        return Evaluation(
            **{"benchmarks": ("sums",), "registry": registry, "directory": tmp_path / "copies", "settings": settings} | changes
        )

    return make


def run(asked: Evaluation, model, against=None):
    return list(evaluate(asked.runs(str(model), against and str(against)), Display(quiet=True)))


def test_a_checkpoint_on_a_benchmark_without_any_config(asked, guesser, tmp_path):
    (done,) = run(asked(), guesser)
    directory = tmp_path / "runs" / done.run.name
    assert done.run.name.startswith("eval-guesser") and (directory / "report.md").exists() and not (directory / "export").exists()
    entry = done.results.arms["base"].eval["sums"]
    assert entry.ks == [1, 2, 3, 4] and entry.questions == 10
    # By hand, from the record.
    answers = done.answers()["sums"]
    first = {sample.question_id: sample.verdict == "correct" for sample in answers.greedy}
    assert entry.greedy.mean == sum(first.values()) / 10
    solved = {sample.question_id for sample in answers.samples if sample.verdict == "correct"}
    assert entry.pass_[4].mean == len(solved) / 10 and solved
    # The prompt asks for the style of the registry, and the table for people is whole.
    assert all("\\boxed{}" in sample.prompt for sample in answers.samples)
    tables = sorted(directory.glob("stages/*/samples.parquet"))
    assert [pyarrow.parquet.read_metadata(path).num_rows for path in tables] == [40, 10]
    manifest = json.loads((tables[0].parent / "manifest.json").read_text())
    assert set(manifest["files"]) == {"samples.jsonl", "samples.parquet"}
    shown = (directory / "report.md").read_text()
    assert "| model | pass@1 % | pass@4 % | greedy % | majority % |" in shown


def test_an_interrupted_evaluation_goes_on(asked, guesser, tmp_path, monkeypatch):
    (whole,) = run(asked(name="whole"), guesser)
    original, left = Appender.append, [17]

    class Killed(BaseException):
        pass

    def append(self, *rows):
        for row in rows:
            original(self, row)
            left[0] -= isinstance(row, Sample)
            if left[0] == 0:
                raise Killed

    monkeypatch.setattr(Appender, "append", append)
    with pytest.raises(Killed):
        run(asked(name="killed"), guesser)
    monkeypatch.undo()
    (begun,) = (tmp_path / "runs" / "killed").glob("stages/eval-base-sums-*")
    assert len((begun / "samples.jsonl").read_text().splitlines()) == 17 and not (begun / "manifest.json").exists()
    (resumed,) = run(asked(name="killed"), guesser)
    assert comparable(tmp_path / "runs" / "killed") == comparable(tmp_path / "runs" / "whole")
    assert resumed.results.arms == whole.results.arms


def test_more_benchmarks_and_a_config_s_sets_share_a_run(asked, guesser, tmp_path, tiny_run):
    config = tmp_path / "run.yaml"
    (first,) = run(asked(settings={"eval.greedy": None}, benchmarks=(), config=config), guesser)
    assert list(first.results.arms["base"].eval) == ["sums"] and first.run.name.startswith("tiny-eval-guesser")
    tree = yaml.safe_load(config.read_text())
    tree["eval"]["questions"] = {"others": tree["eval"]["questions"]["sums"]}
    config.write_text(yaml.safe_dump(tree))
    (both,) = run(asked(settings={"eval.greedy": None}, config=config, limit=4), guesser)
    sets = both.results.arms["base"].eval
    assert {name: entry.questions for name, entry in sets.items()} == {"others": 10, "sums": 4}
    assert sets["sums"].greedy is None


def test_one_model_against_another(asked, guesser, tiny_checkpoint, tmp_path):
    small = {"eval.sampling.max_new_tokens": 8, "eval.samples": 2}
    ours, theirs = run(asked(small), guesser, tiny_checkpoint)
    assert ours.run.name.startswith("eval-guesser") and theirs.run.name.startswith("eval-llama-")
    comparison = compare_models(ours, theirs)
    entry = comparison.sets["sums"]
    assert entry.questions == 10 and set(entry.difference) == {"1", "2", "greedy", "majority"}
    for k in ("1", "2"):
        means = [each.results.arms["base"].eval["sums"].pass_[int(k)].mean for each in (ours, theirs)]
        assert entry.difference[k].mean == pytest.approx(means[0] - means[1])
    written = tmp_path / "runs" / ours.run.name / f"against-{theirs.run.name}"
    assert json.loads(written.with_suffix(".json").read_text()) == comparison.model_dump(mode="json")
    assert "minus" in written.with_suffix(".md").read_text()


def names(runs: list[RunConfig]) -> list[str]:
    return [run.name for run in runs]


def test_runs_are_named_after_what_they_evaluate(asked, tmp_path):
    ask = asked()
    assert names(ask.runs("weights/Tiny v1.gguf")) == ["eval-Tiny-v1.gguf"]
    assert names(ask.runs("runs/a/export", "runs/b/export")) == ["eval-a", "eval-b"]
    assert names(ask.runs("one/llama", "other/llama")) == ["eval-llama", "eval-llama-against-llama"]
    assert names(asked(name="mine").runs("one/llama", "other/lama")) == ["mine", "mine-against-lama"]


def test_settings_win_over_set_and_set_over_the_defaults(asked):
    (run,) = asked({"eval.samples": 3}, overrides=("eval.samples=9", "eval.sampling.top_k=5")).runs("m")
    assert (run.eval.samples, run.eval.sampling.top_k, run.eval.sampling.temperature) == (3, 5, 1.0)
    (run,) = asked(overrides=("eval.questions.sums.0.limit=3",)).runs("m")
    assert run.eval.questions["sums"][0].limit == 3
    assert asked({"eval.sampling.max_new_tokens": None}).runs("m")[0].eval.sampling.max_new_tokens == compare.MAX_NEW_TOKENS


def test_what_can_be_known_is_said_before_anything_is_asked(asked, guesser, tmp_path):
    with pytest.raises(ConfigError, match="there is nothing to ask: name benchmarks"):
        asked(benchmarks=()).runs("m")
    with pytest.raises(ConfigError, match=r"eval\.sampling\.top_p: input should be less than or equal to 1, not 2"):
        asked({"eval.sampling.top_p": 2}).runs("m")
    with pytest.raises(InputError, match="no checkpoint at"):  # of the second model, before the first is asked for hours
        run(asked(), guesser, tmp_path / "nowhere")
    assert not (tmp_path / "runs").exists()
