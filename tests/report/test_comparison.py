"""Configurations side by side: what is a point, what it is compared with, and how that is shown. Directories are made by hand."""

import json

import pytest

from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Question, Sample, dump
from jaxpolya.report.comparison import comparison_plot, comparison_tables, settings_table, write_comparison
from jaxpolya.results import Results
from jaxpolya.runs.configurations import Configuration
from jaxpolya.runs.points import gather_points
from jaxpolya.runs.sweep import points as sweep_points


def write_run(path, results, settings, right):
    """A run directory with a configuration for each of the settings; of the first so many of ten questions `polya+rl` is right."""
    (path / "stages").mkdir(parents=True)
    (path / "config.yaml").write_text("# run directory format: 3\n")
    questions = [Question(id=f"q{i}", question="?", answer="1") for i in range(10)]
    asked = path / "stages" / "questions-eval-chain_sum-aa"
    asked.mkdir()
    (asked / "questions.jsonl").write_text("".join(map(dump, questions)))
    for i, (own, solved) in enumerate(zip(settings, right, strict=True)):
        stage = path / "stages" / f"eval-polya-rl-chain_sum-{i}{i}"
        stage.mkdir()
        shared = {"arm": "polya+rl", "stage": "eval", "index": 0, "prompt": "", "response": "", "token_ids": [1], "logprobs": [], "seed": 0}
        samples = [
            Sample(id=q.id, question_id=q.id, verdict="correct" if k < solved else "wrong", finish="stop", **shared)
            for k, q in enumerate(questions)
        ]
        (stage / "samples.jsonl").write_text("".join(map(dump, samples)))
        one = Configuration(id=str(i), begun=f"2026-01-0{i + 1}", settings=own, stages=[asked.name, stage.name])
        place = path / "configurations" / one.id
        place.mkdir(parents=True)
        (place / "configuration.json").write_text(one.model_dump_json())
        Results.model_validate(results | {"best": "base", "models": {"base": "m"}}).write(place)
    return path


@pytest.fixture
def swept(tmp_path, results):
    results["run"]["name"] = "demo"
    return write_run(tmp_path / "demo", results, [{"select.n": n, "arms": ["base"]} for n in (1, 4, 16)], (2, 2, 9))


def test_points_of_a_sweep_lie_along_what_differs(swept):
    points = gather_points([swept])
    assert points.by == "select.n" and len(points.points) == 3 * 4 * 2 and not any(point.run for point in points.points)
    polya = [point for point in points.sets["chain_sum"] if point.arm == "polya+rl"]
    assert [point.settings for point in polya] == [{"select.n": n} for n in (1, 4, 16)]
    # Question by question: the same ones right, then seven more.
    assert polya[0].versus_first is None and polya[1].versus_first["1"].mean == 0 and polya[2].versus_first["1"].mean == pytest.approx(0.7)
    assert polya[2].versus_first["1"].low > 0
    assert all(point.versus_first is None for point in points.sets["held_out"]), "there are no records of it"
    table = comparison_tables(points)[0]
    assert table.columns == ["select.n", "arm", "pass@1 %", "pass@16 %", "minus base", "minus first"]
    assert [row[-1].text for row in table.rows if row[1].text == "polya+rl"] == ["–", "+0.0", "+70.0"]
    axes = comparison_plot(points).axes
    assert len(axes) == 4 and axes[0].get_xscale() == "log" and axes[0].get_xlabel() == "select.n"


def test_the_page_is_written_whole_and_again(swept, tmp_path):
    points = gather_points([swept], "n")
    page = write_comparison(swept, points)
    text = page.read_text()
    assert "| 16 | polya+rl |" in text and "(compare.png)" in text and (swept / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((swept / "compare.json").read_text())["points"]) == 24
    assert write_comparison(tmp_path / "again", points).read_bytes() == page.read_bytes()


def test_runs_that_differ_in_much_have_a_table_of_what_differs(swept, results, tmp_path):
    results["run"]["name"] = "other"
    far = {f"rl.{key}": 1 for key in ("steps", "group", "prompts", "updates")}
    other = write_run(tmp_path / "other", results, [{"select.n": 4} | far], (5,))
    points = gather_points([swept, other])
    assert points.by is None and len(comparison_plot(points).axes) == 4
    assert {point.run for point in points.points} == {"demo #1", "demo #2", "demo #3", "other"}
    assert comparison_tables(points)[0].columns[:2] == ["run", "arm"]
    assert ["rl.group", "–", "–", "–", "1"] in [[cell.text for cell in row] for row in settings_table(points).rows]
    with pytest.raises(ConfigError, match=r"--by steeps: no setting that differs is meant; they differ in select.n, rl.steps"):
        gather_points([swept, other], "steeps")


def test_doses_are_an_axis(swept, results, tmp_path):
    results["run"]["name"] = "dosed"
    results["config"] = {"rl": {"steps": 12}}
    evaluation = results["arms"]["rl"]["eval"]["chain_sum"]
    results["arms"]["rl"]["doses"] = {"4": {"chain_sum": evaluation}, "8": {"chain_sum": evaluation}}
    points = gather_points([write_run(tmp_path / "dosed", results, [{"select.n": 1}], (1,))])
    assert points.by == "dose"
    assert [point.settings.get("dose") for point in points.sets["chain_sum"] if point.arm == "rl"] == [4, 8, 12]
    assert [point.settings for point in points.sets["chain_sum"] if point.arm == "base"] == [{}]
    assert comparison_plot(points).axes[0].get_xlabel() == "dose"


def test_nothing_finished_is_nothing_to_compare(swept):
    for path in swept.glob("configurations/*/results.json"):
        path.unlink()
    with pytest.raises(InputError, match="no configuration is finished"):
        gather_points([swept])


def test_a_sweep_is_a_grid_of_runs_that_are_read_before_one_starts():
    config = "configs/quickstart.yaml"
    points = sweep_points(config, ["select.n=1,2", "arms=[base],[base,polya]"], ["sft.epochs=1"])
    assert [name for name, _ in points] == [
        "select.n=1,arms=[base]", "select.n=1,arms=[base,polya]", "select.n=2,arms=[base]", "select.n=2,arms=[base,polya]",
    ]  # fmt: skip
    assert [(run.select.n, run.arms) for _, run in points][1:3] == [(1, ["base", "polya"]), (2, ["base"])]
    ((name, run),) = sweep_points(config, ["rl.evaluate_at=1,2"])
    assert name == "rl.evaluate_at=[1,2]" and run.rl.evaluate_at == [1, 2], "doses are one training's"
    for vary, says in (
        ([], "nothing to vary"), (["select.n"], "write it as"), (["select.n=1,"], "write it as"), (["select.n=1,1"], "stands there twice"),
        (["select.n=1", "select.n=2"], "names each setting once"), (["select.n=0"], "select.n=0: .*greater than"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            sweep_points(config, vary)


def test_a_comparison_that_can_t_be_written_is_a_sentence(swept, tmp_path, refused):
    (tmp_path / "there").write_text("")
    refused(5, "there can't be made (File exists); name another directory with --out", "compare", swept, "--out", tmp_path / "there")
