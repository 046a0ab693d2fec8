"""What a run directory has worked on stays: configurations side by side, several seeds, and what nothing needs."""

import json

import pytest
from guesser import comparable

from jaxpolya.config.file import parse_config
from jaxpolya.errors import InputError
from jaxpolya.progress import Display
from jaxpolya.results import Results
from jaxpolya.runs import configurations, overview, pipeline
from jaxpolya.runs.stages import RunDirectory


def run(tree):
    return pipeline.run(parse_config(tree), Display(quiet=True))


def test_seeds_share_what_none_changes_and_stand_beside_another_configuration(tiny_run, jaxpolya):
    tree = tiny_run(arms=["base", "star"], seeds=[0, 1])
    tree["eval"] |= {"samples": 2}
    results = run(tree)
    directory = tiny_run.directory / "runs" / "tiny"
    stages = sorted(path.name.rpartition("-")[0] for path in (directory / "stages").iterdir())
    expected = {"questions-train": 1, "contamination-train": 1, "generate-plain": 2, "sft-star": 2, "eval-star-sums": 2}
    assert {name: stages.count(name) for name in expected} == expected
    star = results.arms["star"]
    assert results.seeds == [0, 1] and list(star.seeds) == [0, 1] and star.eval["sums"].versus_base
    means = [one.eval["sums"].pass_[1].mean for one in star.seeds.values()]
    assert star.eval["sums"].pass_[1].mean == pytest.approx(sum(means) / 2)
    assert Results.read(directory) == results and (directory / "export").is_dir()
    report = (directory / "report.md").read_text()
    assert "with 95 % intervals over 2 seeds and questions" in report and "trained with 2 seeds" in report and "too narrow" in report
    # The first seed is the run without any, and nothing is done anew.
    known = comparable(directory)
    alone = run({name: value for name, value in tree.items() if name != "seeds"} | {"export": False})
    assert comparable(directory) == known and alone.arms["star"] == star.seeds[0]

    view = overview.look_at(directory)
    assert [view.names[one.id] for one in view.configurations] == ["seed=0", "seed=1", "seeds=[0,1]"]
    assert configurations.results_at(directory, "seeds=[0,1]") == results and configurations.results_at(directory, "seed=0") == alone
    code, shown, _ = jaxpolya("show", directory)
    assert code == 0 and "seeds=[0,1]" in shown and "generate-plain" in shown and "1,3" in shown, "which configurations share a stage"
    assert "seeds and questions" in jaxpolya("show", directory, "--at", "seeds=[0,1]")[1]

    # What only a forgotten configuration needs goes; what another needs stays.
    assert "nothing that no configuration needs" in jaxpolya("clean", directory, "--yes")[1]
    jaxpolya("clean", directory, "--forget", "seeds=[0,1]", "--yes")
    assert comparable(directory) == known, "each seed needs its stages"
    code, out, _ = jaxpolya("clean", directory, "--forget", "seed=1", "--yes")
    assert code == 0 and "generate-plain" in out and "deleted 7 stages" in out
    left = {path.name for path in (directory / "stages").iterdir()}
    (only,) = configurations.configurations(directory)
    assert left == set(only.stages)
    assert run({name: value for name, value in tree.items() if name != "seeds"} | {"export": False}).arms == alone.arms


@pytest.fixture
def directory(tmp_path):
    """A run directory made by hand: two configurations, a stage that is broken off, and one that nothing needs."""
    run = tmp_path / "run"
    for name, manifest in (("generate-polya-aa", True), ("sft-polya-bb", True), ("sft-polya-cc", False), ("select-dd", True)):
        stage = run / "stages" / name
        stage.mkdir(parents=True)
        (stage / "attempts.jsonl").write_text("{}\n")
        (stage / "rows.jsonl").write_text("x" * 1500)
        if manifest:
            row = {"stage": name[:-3], "finished": f"2026-01-01T00:00:0{len(name) % 10}", "seconds": 61.0, "stats": {}, "files": {}}
            (stage / "manifest.json").write_text(json.dumps(row))
    (run / "config.yaml").write_text("# run directory format: 3\n")
    for i, (n, stages) in enumerate({1: ["generate-polya-aa", "sft-polya-bb"], 4: ["generate-polya-aa", "sft-polya-cc"]}.items()):
        one = configurations.Configuration(
            id=str(i),
            begun=f"2026-01-01T00:00:0{i}",
            settings={"select.n": n, "rl.steps": 3, "generate.seed": 0, "sft.seed": 0},
            stages=stages,
        )
        place = run / "configurations" / one.id
        place.mkdir(parents=True)
        (place / "configuration.json").write_text(one.model_dump_json())
    return run


def test_stages_have_a_state_and_configurations_that_need_them(directory):
    view = overview.look_at(directory)
    assert {stage.directory.name: (stage.state, stage.used_by) for stage in view.stages} == {
        "generate-polya-aa": ("done", ("0", "1")), "sft-polya-bb": ("done", ("0",)),
        "sft-polya-cc": ("broken off", ("1",)), "select-dd": ("left", ()),
    }  # fmt: skip
    with RunDirectory(directory).lock():
        (running,) = [stage for stage in overview.look_at(directory).stages if stage.state == "running"]
        assert running.directory.name == "sft-polya-cc"
    assert overview.look_at(directory).holder is None


def test_configurations_are_pointed_at_by_what_singles_them_out(directory):
    entries = configurations.configurations(directory)
    assert list(configurations.names(entries).values()) == ["select.n=1", "select.n=4"]
    assert (
        configurations.at(entries, "n=4").id
        == configurations.at(entries, "select.n=4,rl.steps=3").id
        == configurations.at(entries, "1").id
        == "1"
    )
    for pointed, says in (
        ("n=2", "no such configuration here; there are select.n=1; select.n=4"),
        ("steps=3", "2 configurations are meant"),
    ):
        with pytest.raises(InputError, match=f"--at {pointed}: .*{says}"):
            configurations.at(entries, pointed)
    for number, says in ((1, "there is one, called 'the only one'"), (0, "there is none")):
        with pytest.raises(InputError, match=f"--forget nope: there is no such configuration here; {says}"):
            configurations.at(entries[:number], "nope", "--forget")
    assert configurations.at(entries[:1], "the only one") is entries[0]


def test_clean_asks_and_deletes_what_nothing_needs(directory, jaxpolya, refused, monkeypatch):
    monkeypatch.setattr("typer.confirm", lambda question: question.startswith("Delete 1 stages, 1.6 KB") and False)
    assert "nothing was deleted" in jaxpolya("clean", directory)[1] and (directory / "stages/select-dd").exists()
    assert "deleted 1 stages" in jaxpolya("clean", directory, "--yes")[1]
    assert {path.name for path in (directory / "stages").iterdir()} == {"generate-polya-aa", "sft-polya-bb", "sft-polya-cc"}
    jaxpolya("clean", directory, "--forget", "n=4", "--yes")
    assert {path.name for path in (directory / "stages").iterdir()} == {"generate-polya-aa", "sft-polya-bb"}
    record = directory / "configurations/0/configuration.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"stages": None}))
    (directory / "stages/old-ee").mkdir()
    refused(3, "an earlier version worked on this configuration", "clean", directory, "--yes")
    assert (directory / "stages/old-ee").exists()
    record.write_text("{torn")
    refused(3, "configuration.json is damaged", "show", directory)


def test_a_directory_of_the_version_before_is_read_and_kept(tiny_run):
    tree = tiny_run(arms=["base"], export=False)
    first = run(tree)
    directory = tiny_run.directory / "runs" / "tiny"
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("format: 3", "format: 2"))
    for path in sorted((directory / "configurations").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (directory / "configurations").rmdir()
    assert overview.look_at(directory).unknown and configurations.results_at(directory, "the only one") == first
    tree["eval"]["samples"] = 2
    second = run(tree)
    assert configurations.results_at(directory, "samples=4") == first and configurations.results_at(directory, "samples=2") == second
    assert Results.read(directory) == second
    assert len([path for path in (directory / "stages").iterdir() if path.name.startswith("questions")]) == 1, "its stages are found"
