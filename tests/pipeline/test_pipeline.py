"""The whole chain on a tiny model: every record, resuming, sharing, and the model at the end."""

import json
import shutil
from pathlib import Path

import pytest
from guesser import comparable

from jaxpolya.config.file import parse_config
from jaxpolya.errors import ConfigError, JaxpolyaError, MachineError, RunError
from jaxpolya.progress import Display
from jaxpolya.records import Sample, SftRow, read_records
from jaxpolya.runs import pipeline
from jaxpolya.runs.results import model_of_run


def run(tree, mesh_devices=1, **kwargs):
    config = parse_config(tree | {"mesh": {"fsdp": -1}} if mesh_devices == 8 else tree)
    results = pipeline.run(config, Display(quiet=True), **kwargs)
    return results and results.to_json()


def files(directory) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_the_whole_chain(tiny_run):
    results = run(tiny_run())
    directory = tiny_run.directory / "runs" / "tiny"
    assert list(results["arms"]) == ["base", "rl", "star+rl", "polya+rl"]
    for arm, entry in results["arms"].items():
        assert set(entry["eval"]["sums"]["pass"]) == {"1", "2", "3", "4"}
        assert ("rl" not in entry) == (arm == "base")
        assert ("sft" not in entry) == (arm in ("base", "rl"))
        described = entry["eval"]["sums"]
        assert described["diversity"]["questions"] == 10 and described["diversity"]["samples"] == 4
        assert 1 <= described["diversity"]["vendi"]["mean"] <= 4 and "label_entropy" in described["diversity"]
        assert described["composition"]["judge"] == "acts"
    shared = {use: len(questions_of(tiny_run, use) & questions_of(tiny_run, "eval")) for use in ("train", "rl")}
    assert {use: entry["shared"] for use, entry in results["contamination"].items()} == shared and all(shared.values())
    stages = {path.name.rsplit("-", 1)[0]: path for path in (directory / "stages").iterdir()}
    polya = read_records(stages["select"] / "polya.jsonl", SftRow)
    star = read_records(stages["select"] / "star.jsonl", SftRow)
    assert polya and {row.heuristic for row in polya} <= {"analogy", "symmetry", "pattern"}
    assert max(sum(other.question_id == row.question_id for other in polya) for row in polya) <= 2
    assert len({row.question_id for row in star}) == len(star) and {row.heuristic for row in star} == {None}
    # Who doubts the selection finds the adherence of what wasn't kept too.
    scores = [json.loads(line)["adherence"] for line in (stages["select"] / "adherence.jsonl").read_text().splitlines()]
    assert {row.adherence for row in polya if row.adherence is not None} <= set(scores)
    # The prompt is the bare question: nothing of the heuristic is left.
    assert {row.prompt for row in polya if row.question_id == polya[0].question_id} == {polya[0].prompt}
    rollouts = read_records(stages["rl-rl"] / "rollouts" / "000000.jsonl", Sample)
    assert len(rollouts) == 8 and all(sample.reward in (0.0, 1.0) and sample.advantage is not None for sample in rollouts)
    for name in (
        "results.json",
        "report.md",
        "report.html",
        "config.yaml",
        "export/config.json",
        "export/README.md",
        "plots/pass_at_k.png",
        "plots/rl.png",
    ):
        assert (directory / name).exists(), name
    assert not list((directory / "stages").glob("*/checkpoints"))
    judged = {name for name in stages if name.startswith(("generate-", "rl-", "eval-"))}
    assert set(results["audit"]) == judged, "every stage that judges is audited"
    for name in judged:
        audit = results["audit"][name]
        samples = [sample for path in sorted(stages[name].rglob("*.jsonl")) for sample in rows_of(path) if "verdict" in sample]
        paid = [sample for sample in samples if sample["verdict"] == "correct"]
        assert (audit["all"]["responses"], audit["all"]["paid"]) == (len(samples), len(paid))
        assert not paid or audit["all"]["not_number"] == 0.0
    assert {"first", "last", "shown"} < set(results["audit"]["rl-rl"])
    busy = {row["name"]: row["rows_busy"] for row in results["stages"] if "rows_busy" in row}
    assert set(busy) == judged and all(0.1 < share < 1 for share in busy.values())
    before = files(directory)
    (directory / "export" / "README.md").write_text("of another run")
    written = (directory / "export" / "model.safetensors").stat().st_mtime_ns
    assert run(tiny_run()) == results
    assert (directory / "export" / "model.safetensors").stat().st_mtime_ns == written, "the card alone is written again"
    assert {name: data for name, data in files(directory).items() if not name.startswith(".")} == {
        name: data for name, data in before.items() if not name.startswith(".")
    }


def test_a_stage_of_a_version_without_audit_is_taken_as_it_is(tiny_run):
    tree = tiny_run(arms=["rl"], export=False)
    before = run(tree)["audit"]
    for path in (tiny_run.directory / "runs" / "tiny" / "stages").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["stats"].pop("audit", None)
        path.write_text(json.dumps(manifest))
    shown = before["rl-rl"]["shown"]
    assert run(tree)["audit"] == ({"rl-rl": {"warnings": [], "shown": shown}} if shown else {})
    assert "## Audit of rewards" in (tiny_run.directory / "runs" / "tiny" / "report.md").read_text()


def rows_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def questions_of(tiny_run, use) -> set[str]:
    return {json.loads(line)["id"] for line in (tiny_run.directory / f"{use}.jsonl").read_text().splitlines()}


def test_shared_questions_are_left_out_and_counted(tiny_run):
    assert run(tiny_run(contamination={"drop": True}), only="questions") is None
    stages = tiny_run.directory / "runs" / "tiny" / "stages"
    for use in ("train", "rl"):
        whole, evaluated = questions_of(tiny_run, use), questions_of(tiny_run, "eval")
        manifests = [json.loads((path / "manifest.json").read_text()) for path in stages.glob(f"questions-{use}-*")]
        (dropped,) = (manifest["stats"] for manifest in manifests if manifest["stats"]["dropped"])
        assert dropped == {"questions": len(whole - evaluated), "dropped": {"shared with an evaluation set": len(whole & evaluated)}}
    before = {path.name for path in stages.iterdir()}
    # Another set that shares nothing compares anew, and leaves the training questions as they are.
    tree = tiny_run(contamination={"drop": True})
    other = {"kind": "reasoning_gym", "name": "products", "size": 3}
    run(tree | {"eval": tree["eval"] | {"questions": tree["eval"]["questions"] | {"products": [other]}}}, only="questions")
    new = {path.name.rsplit("-", 1)[0] for path in stages.iterdir() if path.name not in before}
    assert new == {"contamination-train", "contamination-rl", "questions-eval-products"}
    (tiny_run.directory / "eval.jsonl").write_text((tiny_run.directory / "rl.jsonl").read_text())
    with pytest.raises(RunError, match=r"contamination\.drop leaves no question for rl"):
        run(tiny_run(contamination={"drop": True}), only="questions")


def test_arms_share_stages_and_a_change_redoes_only_what_it_touches(tiny_run):
    run(tiny_run(arms=["base", "polya"], export=False))
    stages = tiny_run.directory / "runs" / "tiny" / "stages"
    first = {path.name for path in stages.iterdir()}
    tree = tiny_run(arms=["base", "polya", "polya+rl"], export=False)
    run(tree)
    second = {path.name for path in stages.iterdir()}
    assert {name.rsplit("-", 1)[0] for name in second - first} == {
        "questions-rl", "contamination-rl", "rl-polya-rl", "eval-polya-rl-sums", "labels-polya-rl-sums",
    }  # fmt: skip
    tree["rl"] |= {"algorithm": "dr_grpo", "aggregation": "seq_mean_token_mean", "checkpoint_every": 2}
    tree["decode"] = {"rows": 8, "burst": 4}
    run(tree)
    assert {name.rsplit("-", 1)[0] for name in {path.name for path in stages.iterdir()} - second} == {
        "rl-polya-rl", "eval-polya-rl-sums", "labels-polya-rl-sums",
    }  # fmt: skip
    moved = stages.parent.rename(tiny_run.directory / "elsewhere")
    assert Path(model_of_run(moved, "polya+rl")).is_relative_to(moved)


def test_what_the_verifier_failed_on_is_judged_again(tiny_run, monkeypatch):
    monkeypatch.setattr("jaxpolya.verify.pool.plain_verdict", lambda item, answer: None)  # numbers need no worker
    tree = tiny_run(arms=["base"], export=False)
    with pytest.raises(MachineError, match=r"40 of 40 responses, to 10 questions, could not be judged .*start again"):
        run(tree | {"verify": {"workers": 1, "memory_mb": 1}})
    assert run(tree)["arms"]["base"]["eval"]["sums"]["pass"]["1"]["mean"] > 0


def test_a_training_that_diverges_stops(tiny_run):
    tree = tiny_run(arms=["star"], export=False)
    tree["sft"]["optimizer"] = {"learning_rate": 1e30}
    with pytest.raises(RunError, match=r"sft-star-\w+, step \d+: .*not finite"):
        run(tree)


class Killed(BaseException):
    """What a kill -9 looks like from inside: nothing runs after it."""


REFILLED = {"algorithm": "dapo", "group": 2, "refills": 4, "overlong_buffer": 0}
"""Groups of two are mixed now and then only."""

REFERRED = {"kl": {"weight": 0.05}, "old_logprobs": "trainer", "tis": 2.0, "entropy_bonus": 0.01, "epochs": 2}
"""Terms that need more than the rollouts: the start's parameters, and a forward pass before a round's first update."""


@pytest.mark.parametrize(
    ("stage", "rl"),
    [("generate-polya", {}), ("sft-star", {}), ("rl-rl", {}), ("rl-rl", REFERRED), ("rl-rl", REFILLED), ("eval-rl", {})],
    ids=str,
)
def test_a_killed_stage_goes_on_and_ends_with_the_same_bits(tiny_run, stage, rl, monkeypatch):
    arms = {"generate-polya": ["polya"], "sft-star": ["star"], "rl-rl": ["rl"], "eval-rl": ["rl"]}[stage]
    tree = tiny_run(arms=arms, export=False)
    tree["rl"] |= rl
    whole = tiny_run.directory / "whole"
    run(tree | {"output": str(whole)})
    kill_after(monkeypatch, stage, 2 if stage == "sft-star" else 11)
    with pytest.raises(Killed):
        run(tree)
    monkeypatch.undo()
    killed = tiny_run.directory / "runs"
    (begun,) = (path for path in (killed / "tiny" / "stages").glob(f"{stage}-*"))
    assert not (begun / "manifest.json").exists()
    kept = sum(len(path.read_text().splitlines()) for path in begun.rglob("*.jsonl") if path.name != "attempts.jsonl")
    assert kept, "nothing of the broken-off stage was kept"
    run(tree)
    assert comparable(killed / "tiny") == comparable(whole / "tiny")
    if rl == REFILLED:
        log = steps(killed / "tiny" / "stages", "rl-rl")
        files = sorted(path.name for path in killed.rglob("rollouts/*.jsonl"))
        asked = [f"{step['step']:06d}{f'-{n}' if n else ''}.jsonl" for step in log for n in range(1 + step["refills"])]
        assert files == sorted(asked) and len(files) > len(log), "no round was refilled"
    if rl == REFERRED:
        log = steps(killed / "tiny" / "stages", "rl-rl")
        # The sampler and the trainer agree before any update; the start and the policy no longer do after the first one.
        assert all(abs(step["sampler_kl"]) < 1e-6 < step["reference_kl"] for step in log) and all("corrected" in step for step in log)


def kill_after(monkeypatch, stage: str, units: int) -> None:
    """Raises `Killed` when a stage has done so many units of work."""
    original = Display.task

    def task(self, title, total, done=0):
        import contextlib

        @contextlib.contextmanager
        def watched():
            with original(self, title, total, done) as bar:
                yield bar if not title.startswith(stage) else Bomb()

        class Bomb:
            left = units

            def advance(self, done=1, **facts):
                self.left -= done
                if self.left <= 0:
                    raise Killed

            def phase(self, name):
                pass

            def step(self, number, of, facts):
                pass

        return watched()

    monkeypatch.setattr(Display, "task", task)


def test_eight_devices_give_the_same_losses_on_recorded_tokens(tiny_run):
    """RL on the rollouts that one device drew, and the fine-tuning before it."""
    tree = tiny_run(arms=["star+rl"], export=False)
    tree["sft"]["batching"]["micro_rows"] = tree["sft"]["batch_rows"] = tree["rl"]["batching"]["micro_rows"] = 8
    # Adam's first steps are near the sign of the gradient: a high rate would turn rounding into other weights.
    tree["rl"]["optimizer"] = {"learning_rate": 1e-4}
    run(tree)
    stages = tiny_run.directory / "runs" / "tiny" / "stages"
    one = {name: steps(stages, name) for name in ("sft-star", "rl-star-rl")}
    for name in ("sft-star", "rl-star-rl"):
        (directory,) = stages.glob(f"{name}-*")
        (directory / "manifest.json").unlink()
        (directory / "steps.jsonl").unlink()
        shutil.rmtree(directory / "model")
    run(tree | {"mesh": {"replica": 2, "fsdp": 2, "tensor": 2}})
    assert any(step["grad_norm"] > 0 for step in one["rl-star-rl"]), "no group had a signal: nothing was compared"
    for name, before in one.items():
        for step, expected in zip(steps(stages, name), before, strict=True):
            assert step["loss"] == pytest.approx(expected["loss"], abs=1e-5)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4, abs=1e-5)


def steps(stages, name) -> list[dict]:
    (directory,) = stages.glob(f"{name}-*")
    return [json.loads(line) for line in (directory / "steps.jsonl").read_text().splitlines()]


def test_wrong_external_cap_and_match(tiny_run):
    traces = tiny_run.directory / "traces.jsonl"
    train = [json.loads(line) for line in (tiny_run.directory / "train.jsonl").read_text().splitlines()]
    traces.write_text(
        "".join(json.dumps({"question_id": row["id"], "response": f"So the answer is {row['answer']}."}) + "\n" for row in train)
    )
    tree = tiny_run(arms=["polya", "wrong", "external"], export=False)
    tree["select"] = {"n": 2, "external": str(traces), "max_questions": 5, "match": "instances"}
    results = run(tree)
    sizes = {kind: rows["rows"] for kind, rows in results["selection"].items()}
    assert set(sizes) == {"polya", "wrong", "external"} and len(set(sizes.values())) == 1
    assert all(rows["questions"] <= 5 for rows in results["selection"].values())


def test_no_correct_response_is_said_plainly(tiny_run):
    train = tiny_run.directory / "train.jsonl"
    train.write_text("".join(json.dumps(json.loads(line) | {"answer": "77"}) + "\n" for line in train.read_text().splitlines()))
    with pytest.raises(RunError, match=r"the polya arm has nothing to learn from: it takes correct responses .* there are \d+ wrong"):
        run(tiny_run(arms=["polya"]))


def test_only_needs_what_comes_before(tiny_run):
    with pytest.raises(RunError, match="generate-polya comes before it"):
        run(tiny_run(arms=["polya"]), only="select")
    assert run(tiny_run(arms=["polya"]), only="generate") is None
    assert run(tiny_run(arms=["polya"]), only="select") is None
    with pytest.raises(ConfigError, match="the phases are"):
        run(tiny_run(), only="train")


def test_programs_are_asked_for_and_run(tiny_run, tmp_path):
    questions = tmp_path / "code.jsonl"
    questions.write_text('{"question": "Double.", "verifier": "code", "tests": ["assert f(1) == 2"]}\n')
    tree = tiny_run(arms=["polya"])
    tree["generate"]["questions"] = [{"kind": "jsonl", "path": str(questions)}]
    assert run(tree, only="generate") is None
    (stage,) = (tmp_path / "runs").rglob("generate-polya*/samples.jsonl")
    samples = read_records(stage, Sample)
    assert samples and all("It must pass this test: assert f(1) == 2" in sample.prompt for sample in samples)
    assert {sample.verdict for sample in samples} <= {"wrong", "unparseable"}
    computed_by = json.loads((stage.parent / "manifest.json").read_text())["provenance"]
    assert computed_by["sandbox"]
    assert computed_by["attention"] == computed_by["decoding"] == "xla"
    for without in (tmp_path / "runs").rglob("questions-*/manifest.json"):
        assert "decoding" not in json.loads(without.read_text())["provenance"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select": {"n": 4}}, "select.n"),
        ({"mesh": {"fsdp": 3}}, "mesh"),
        ({"model": {"source": "no/such/place"}}, "no/such/place"),
    ],
)
def test_impossible_runs_fail_before_anything_is_written(tiny_run, change, message):
    with pytest.raises(JaxpolyaError, match=message):
        run(tiny_run(**change))
    assert not (tiny_run.directory / "runs").exists()


def test_a_model_that_is_too_short_to_judge_is_said_before_anything_is_written(tiny_run):
    tree = tiny_run()
    tree["eval"]["composition"] = "model"
    with pytest.raises(ConfigError, match=r"eval\.composition model: asking about .* the model has 128 positions"):
        run(tree)
    assert not (tiny_run.directory / "runs").exists()


def test_a_template_that_refuses_answers_is_said_before_anything_is_written(tiny_run, guesser):
    model = shutil.copytree(guesser, tiny_run.directory / "model")
    template = model / "chat_template.jinja"
    template.write_text("{% if messages[-1]['role'] != 'user' %}{{ raise_exception('No') }}{% endif %}" + template.read_text())
    with pytest.raises(ConfigError, match=r"chat template refuses a conversation that ends with an answer.* \(No\)"):
        run(tiny_run(arms=["base", "star"], model={"source": str(model)}))
    assert not (tiny_run.directory / "runs").exists()
