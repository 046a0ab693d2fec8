"""A run says what happened: broken models, verdicts that were cut short, stages that are known by what they rest on."""

import json
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from guesser import comparable

from jaxpolya.config.file import parse_config
from jaxpolya.errors import InputError, RunError
from jaxpolya.progress import Display
from jaxpolya.records import Sample, Verdict, read_records
from jaxpolya.runs import pipeline
from jaxpolya.runs.overview import look_at
from jaxpolya.runs.results import model_of_run
from jaxpolya.verify.pool import Pool


def run(tree, **kwargs):
    results = pipeline.run(parse_config(tree), Display(quiet=True), **kwargs)
    return results and results.to_json()


def stage(tree, name: str) -> Path:
    """The newest stage directory of a name."""
    paths = (Path(tree["output"]) / tree["name"] / "stages").glob(f"{name}-*")
    return max(paths, key=lambda path: (path / "attempts.jsonl").stat().st_mtime_ns)


def traces(tiny_run, *others, wrong: int = 0) -> str:
    """A file of one right trace of each training question, of which the first so many are made wrong, and of others."""
    path = tiny_run.directory / "traces.jsonl"
    train = [json.loads(line) for line in (tiny_run.directory / "train.jsonl").read_text().splitlines()]
    answers = [int(row["answer"]) + (i < wrong) for i, row in enumerate(train)]
    rows = [{"question_id": row["id"], "response": f"The answer is {answer}."} for row, answer in zip(train, answers, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *others]))
    return str(path)


@pytest.fixture
def broken(guesser, tmp_path):
    """The guesser with one NaN among its weights."""
    copy = Path(shutil.copytree(guesser, tmp_path / "broken"))
    tensors = safetensors.numpy.load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"] = tensors["model.layers.1.mlp.down_proj.weight"].copy()
    tensors["model.layers.1.mlp.down_proj.weight"][3, 4] = np.nan
    safetensors.numpy.save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize(("arm", "phase"), [("base", "eval"), ("star", "generate"), ("rl", "rl"), ("external", "sft")])
def test_a_model_that_gives_nan_is_named_wherever_it_is_asked(tiny_run, broken, arm, phase):
    tree = tiny_run(arms=[arm], export=False)
    tree["model"]["source"] = str(broken)
    tree["select"] = {"external": traces(tiny_run)}
    tree["sft"]["heldout"] = 0
    with pytest.raises(InputError, match=rf"^{broken}\b.*finite"):
        run(tree)
    reached = {path.name.split("-")[0] for path in stage(tree, phase).parent.iterdir() if not (path / "manifest.json").exists()}
    assert reached == {phase}
    assert not [path for path in stage(tree, phase).rglob("*.jsonl") if b"NaN" in path.read_bytes()]


@pytest.mark.parametrize(
    ("rate", "says"), [(1e3, "the network is dead: .*loss ln V = 6.24.*lower its optimizer.learning_rate"), (1e10, "diverged")]
)
def test_a_rate_that_kills_the_network_is_said(tiny_run, rate, says):
    tree = tiny_run(arms=["star"], export=False)
    tree["sft"] |= {"optimizer": {"learning_rate": rate, "warmup": 0}, "epochs": 4}
    with pytest.raises(RunError, match=says):
        run(tree)


@pytest.fixture
def hurried(monkeypatch):
    """Under a deadline below 5 s the verifier cuts every third response short. A list of all that it was asked."""
    asked: list[str] = []
    submit = Pool.submit

    def hurry(self, item):
        if item.second:  # the audit's reading, which changes nothing
            return submit(self, item)
        asked.append(item.id)
        if self.deadline >= 5 or sum(item.id.encode()) % 3:
            return submit(self, item)
        future: Future[Verdict] = Future()
        future.set_result(Verdict(verdict="timeout" if sum(item.id.encode()) % 2 else "crash", seconds=self.deadline))
        return future

    monkeypatch.setattr(Pool, "submit", hurry)
    return asked


def test_what_small_limits_cut_short_is_judged_again_under_larger_ones(tiny_run, hurried):
    tree = tiny_run(arms=["base", "rl", "polya"], export=False)
    expected = run(tree | {"name": "patient"})
    hurried.clear()
    short = tree | {"verify": {"workers": 1, "deadline": 1.0}}
    run(short)
    files = {name: stage(tree, name) / "samples.jsonl" for name in ("generate-polya", "eval-base-sums", "eval-rl-sums")}
    before = {name: read_records(path, Sample) for name, path in files.items()}
    cut = {sample.id for samples in before.values() for sample in samples if sample.verdict in ("timeout", "crash")}
    assert cut and all(s.deadline == 1.0 and s.memory_mb == 2048 for samples in before.values() for s in samples if s.id in cut)
    selected, trained = stage(tree, "select"), stage(tree, "rl-rl")
    rollouts = {path.name: path.read_bytes() for path in (trained / "rollouts").iterdir()}

    hurried.clear()
    run(short)
    assert not hurried, "the same limits have nothing to add"
    results = run(tree | {"verify": {"workers": 1, "deadline": 20.0}})
    asked_under_a_slot = [i for i in hurried if "/" in i]  # the ids of the others occur in several stages
    assert sorted(asked_under_a_slot) == sorted(i for i in cut if "/" in i), "those, and those only"
    for name, path in files.items():
        after = read_records(path, Sample)
        assert [s.token_ids for s in after] == [s.token_ids for s in before[name]]
        assert not [s for s in after if s.verdict in ("timeout", "crash") or s.deadline]
    assert stage(tree, "select") != selected, "the selection rests on the new verdicts"
    # RL has trained on its verdicts: there they stay, and are counted.
    assert stage(tree, "rl-rl") == trained and {path.name: path.read_bytes() for path in (trained / "rollouts").iterdir()} == rollouts
    assert sum(step["cut_short"] for step in results["arms"]["rl"]["rl"]["steps"]) > 0
    for arm in ("base", "polya"):  # as if the limits had always been large
        assert results["arms"][arm]["eval"] == expected["arms"][arm]["eval"] and results["arms"][arm].get("sft") == expected["arms"][
            arm
        ].get("sft")


def test_a_kill_while_verdicts_are_found_again_loses_nothing(tiny_run, hurried, monkeypatch):
    tree = tiny_run(arms=["base"], export=False)
    run(tree | {"verify": {"workers": 1, "deadline": 1.0}})
    larger = tree | {"verify": {"workers": 1, "deadline": 20.0}}

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    cut = [s.id for s in read_records(stage(tree, "eval-base-sums") / "samples.jsonl", Sample) if s.verdict in ("timeout", "crash")]
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "verify", killed)
        with pytest.raises(Killed):
            run(larger)
    hurried.clear()
    run(larger)
    assert hurried == cut != []
    run(tree | {"name": "other"})
    whole, other = (comparable(Path(tree["output"]) / name) for name in (tree["name"], "other"))
    assert whole == other


def test_a_later_phase_alone_does_not_rest_on_old_verdicts(tiny_run, hurried):
    tree = tiny_run(arms=["star"], export=False)
    run(tree | {"verify": {"workers": 1, "deadline": 1.0}}, only="generate")
    with pytest.raises(RunError, match=r"--only select: generate-plain: \d+ verdicts were cut short by smaller limits"):
        run(tree | {"verify": {"workers": 1, "deadline": 20.0}}, only="select")


def test_only_correct_traces_are_learned_unless_all_are_asked_for(tiny_run):
    tree = tiny_run(arms=["base", "external"], export=False)
    gone = {"question": "What is asked elsewhere?", "response": "This."}
    tree["select"] = {"external": traces(tiny_run, gone, wrong=3)}
    results = run(tree)
    assert results["selection"]["external"]["rows"] == 13
    assert results["left_out"]["traces"] == {"no training question": 1, "not correct": 3}
    assert "| traces | not correct | 3 |" in (Path(tree["output"]) / "tiny" / "report.md").read_text()
    tree["select"]["external_verdicts"] = "all"
    results = run(tree)
    assert results["selection"]["external"]["rows"] == 16 and results["left_out"]["traces"] == {"no training question": 1}


def test_traces_are_looked_at_before_anything_is_generated(tiny_run):
    tree = tiny_run(arms=["star", "external"], export=False)
    for others, wrong, error, says in (
        ([{"question_id": "sum-1-1"}], 0, InputError, ":17: needs a `response`"),
        ([], 16, RunError, "only correct traces are kept, and there are 16 wrong"),
    ):
        tree["select"] = {"external": traces(tiny_run, *others, wrong=wrong)}
        with pytest.raises(error, match=says):
            run(tree)
    assert not list(Path(tree["output"]).glob("tiny/stages/generate-*"))


def test_what_was_left_out_and_rl_without_signal_stand_in_the_report(tiny_run):
    """Every RL question asks for an answer that no response gives, one training question is repeated, one is evaluated on."""
    rl, train = tiny_run.directory / "rl.jsonl", tiny_run.directory / "train.jsonl"
    rl.write_text("".join(json.dumps(json.loads(line) | {"answer": "77"}) + "\n" for line in rl.read_text().splitlines()))
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    rows += [rows[0] | {"id": "again"}, rows[1] | {"id": "long", "question": "What is 1 + 1? " + "Look! " * 200}]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = tiny_run(arms=["base", "rl", "star"], export=False, contamination={"drop": True})
    results = run(tree)
    shared = results["contamination"]["train"]["shared"]
    assert shared and results["left_out"]["train"] == {"repeated question": 1, "shared with an evaluation set": shared}
    assert results["left_out"]["generate-plain"] == {"prompt too long": 1}
    report = (Path(tree["output"]) / "tiny" / "report.md").read_text()
    assert "| train | repeated question | 1 |" in report and "| generate-plain | prompt too long | 1 |" in report
    assert results["arms"]["rl"]["rl"]["without_signal"] and results["best"] != "rl"
    assert "RL of rl had no signal" in report and "rl (RL without signal)" in report
    (compared,) = (line for line in report.splitlines() if "At pass@1," in line)
    assert "star" in compared and "rl" not in compared.replace("star", "")


def test_run_directories_of_other_versions(tiny_run, capsys):
    tree = tiny_run(arms=["base"], export=False)
    run(tree)
    config = Path(tree["output"]) / "tiny" / "config.yaml"
    first, _, rest = config.read_text().partition("\n")
    assert first == "# run directory format: 3"
    config.write_text(rest)  # as the first version wrote it
    pipeline.run(parse_config(tree), Display())
    assert "was begun by an earlier version of jaxpolya" in " ".join(capsys.readouterr().err.split())
    config.write_text(f"# run directory format: 4\n{rest}")
    for read in (lambda: run(tree), lambda: look_at(config.parent), lambda: model_of_run(config.parent)):
        with pytest.raises(InputError, match=r"was made by a later version of jaxpolya .*format is 4.* update jaxpolya"):
            read()
