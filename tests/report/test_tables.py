"""Tables: the same cells on screen and in Markdown, the best marked, holes shown as holes."""

import io

import pytest
import rich.console

from jaxpolya.report import tables
from jaxpolya.report.tables import Cell, Table
from jaxpolya.results import Comparison, Results

of = Results.model_validate


def on_screen(table, width=160):
    console = rich.console.Console(file=io.StringIO(), width=width)
    for part in table.within(width):
        console.print(part.to_rich(width))
    return console.file.getvalue()


def test_both_renderings_hold_every_cell(results):
    shown = tables.screen_tables(of(results))
    assert [table.title.split(":")[0] for table in shown] == [
        "pass@1 in percent on 2 question sets, and the average over them",
        "chain_sum", "held_out", "chain_sum", "held_out", "Training, first → last (RL",
    ]  # fmt: skip
    for table in shown:
        screen, markdown = on_screen(table), table.to_markdown()
        for row in table.rows:
            assert len(row) == len(table.columns)
            for cell in row:
                assert cell.text in screen and cell.text in markdown


def test_the_highest_mean_of_each_column_is_marked(results):
    table = tables.eval_tables(of(results))[0]
    assert table.columns == ["arm", "pass@1 %", "pass@4 %", "pass@16 %", "truncated %", "no answer %", "mean tokens"]
    assert {row[0].text for row in table.rows if any(cell.best for cell in row)} == {"polya+rl"}
    entry = results["arms"]["polya+rl"]["eval"]["chain_sum"]["pass"]["16"]
    cell = table.rows[3][3]
    assert cell == Cell(f"{100 * entry['mean']:.1f}", f"{100 * entry['low']:.1f}–{100 * entry['high']:.1f}", best=True)
    assert f"| **{cell.text} ({cell.interval})** |" in table.to_markdown()


def test_no_cell_is_broken_at_80_characters(results):
    for table in tables.screen_tables(of(results)):
        screen = on_screen(table, width=80)
        for cell in (cell for row in table.rows for cell in row):
            assert cell.text in screen and cell.interval in screen


def test_greedy_and_majority_have_columns_and_still_fit(results):
    for entry in results["arms"].values():
        evaluation = entry["eval"]["chain_sum"]
        evaluation |= {"majority": evaluation["pass"]["4"], "greedy": evaluation["pass"]["1"]}
    table = tables.eval_tables(of(results))[0]
    assert table.columns[1:5] == ["pass@1 %", "pass@16 %", "greedy %", "majority %"]
    assert [row[0].text for row in table.rows if row[3].best] == ["polya+rl"] and table.rows[0][3].text == table.rows[0][1].text
    screen = on_screen(table, width=80)
    for cell in (cell for row in table.rows for cell in row):
        assert cell.text in screen and cell.interval in screen


def test_a_comparison_marks_what_leaves_out_zero():
    better, unclear = {"mean": 0.125, "low": 0.05, "high": 0.2}, {"mean": -0.01, "low": -0.08, "high": 0.06}
    both = {"gsm8k": {"questions": 1319, "difference": {"1": better, "2": better, "8": unclear, "majority": unclear}}}
    table = tables.comparison_table(
        Comparison.model_validate({"model": "a", "against": "b", "sets": both | {"aime24": {"questions": 30, "difference": {"1": better}}}})
    )
    assert table.columns == ["set", "questions", "pass@1", "pass@8", "majority"] and "a minus b" in table.title
    assert table.rows[0][1:4] == [Cell("1,319"), Cell("+12.5", "+5.0 to +20.0", best=True), Cell("−1.0", "−8.0 to +6.0")]
    assert [cell.text for cell in table.rows[1]] == ["aime24", "30", "+12.5", tables.NONE, tables.NONE]


def test_nothing_is_best_where_all_are_alike(base_only):
    base_only["arms"]["rl"] = base_only["arms"]["base"]
    assert not any(cell.best for row in tables.eval_tables(of(base_only))[0].rows for cell in row)


def test_an_arm_without_a_metric_has_a_dash(results):
    del results["arms"]["rl"]["eval"]["chain_sum"]["pass"]["16"]
    results["arms"]["rl"]["eval"]["chain_sum"]["truncated"] = None
    row = tables.eval_tables(of(results))[0].rows[1]
    assert row[0].text == "rl" and row[3].text == row[4].text == tables.NONE


@pytest.mark.parametrize(
    ("largest", "shown"), [(1, [1]), (2, [1, 2]), (8, [1, 4, 8]), (16, [1, 4, 16]), (32, [1, 8, 32]), (256, [1, 16, 256])]
)
def test_few_columns_of_k_that_hold_both_ends(base_only, largest, shown):
    entry = base_only["arms"]["base"]["eval"]["set"]
    entry["pass"] = {str(1 << p): entry["pass"]["1"] for p in range(largest.bit_length())}
    columns = [name for name in tables.eval_tables(of(base_only))[0].columns if name.startswith("pass@")]
    assert columns == [f"pass@{k} %" for k in shown]


@pytest.mark.parametrize(("largest", "shown"), [(3, [1, 2, 3]), (12, [1, 4, 12]), (64, [1, 8, 64])])
def test_between_the_ends_stands_a_power_of_two(base_only, largest, shown):
    entry = base_only["arms"]["base"]["eval"]["set"]
    entry["pass"] = {str(k): entry["pass"]["1"] for k in range(1, largest + 1)}
    assert [name for name in tables.eval_tables(of(base_only))[0].columns if name.startswith("pass@")] == [f"pass@{k} %" for k in shown]


def test_training_compares_quarters_and_leaves_out_untrained_arms(results):
    for i, step in enumerate(results["arms"]["rl"]["rl"]["steps"]):
        step["reward"] = None if i == 0 else float(i)  # a step whose rewards were all masked
    table = tables.training_table(of(results))
    assert [row[0].text for row in table.rows] == ["rl", "star+rl", "polya+rl"]
    # 11 rewards 1 … 11: quarters of two steps.
    assert table.rows[0][5].text == "1.500→10.500"
    assert table.rows[0][1].text == tables.NONE and table.rows[2][2].text == "0.912→0.604"


def test_diversity_has_intervals_and_holes(results):
    del results["arms"]["rl"]["eval"]["chain_sum"]["diversity"]["label_entropy"]
    results["arms"]["rl"]["eval"]["chain_sum"]["composition"] = None
    results["arms"]["base"]["eval"]["chain_sum"]["diversity"] = None  # one sample a question
    table = tables.diversity_tables(of(results))[0]
    assert table.title == "chain_sum: diversity over 120 questions × 16 samples"
    assert [row[0].text for row in table.rows] == ["rl", "star+rl", "polya+rl"]
    assert table.rows[1][1:] == [
        Cell("40.0", "36.0–44.0"), Cell("51.2", "46.1–56.3"), Cell("11.25", "10.12–12.38"), Cell("1.03", "0.93–1.14"),
        Cell("12.5", "11.2–13.8"), Cell("20.0", "18.0–22.0"),
    ]  # fmt: skip
    assert [cell.text for cell in table.rows[0][4:]] == [tables.NONE] * 3


def test_a_run_that_did_nothing_has_no_tables(base_only):
    assert [table.title.split(":")[0] for table in tables.screen_tables(of(base_only))] == ["set"]
    assert tables.screen_tables(of({"run": {"name": "bare"}})) == []


def test_selection_and_heuristics(results):
    spread = [[cell.text for cell in row] for row in tables.selection_table(of(results)).rows]
    assert spread == [["polya", "136", "60", "1: 21, 2: 15, 3: 11, 4: 13"], ["star", "48", "48", "1: 48"]]
    rows = [[cell.text for cell in row] for row in tables.heuristics_table(of(results)).rows]
    assert rows[0] == ["plain", "480", "22.9", "4.2", "–", "48"] and rows[1] == ["analogy", "240", "25.8", "3.8", "31", "–"]
    results["generation"]["fruitless"] = {"samples": 0, "correct": 0, "truncated": 0}
    assert [cell.text for cell in tables.heuristics_table(of(results)).rows[-1]] == ["fruitless", "0", "–", "–", "–", "–"]


def test_the_average_counts_every_set_alike(results):
    table = tables.average_table(of(results))
    assert table.columns == ["arm", "chain_sum", "held_out", "average"] and [row[0].text for row in table.rows] == list(results["arms"])
    entries = [results["arms"]["rl"]["eval"][name]["pass"]["1"] for name in ("chain_sum", "held_out")]
    mean = sum(entry["mean"] for entry in entries) / 2
    below = sum((entry["mean"] - entry["low"]) ** 2 for entry in entries) ** 0.5 / 2
    assert table.rows[1][3].text == f"{100 * mean:.1f}" and table.rows[1][3].interval.startswith(f"{100 * (mean - below):.1f}–")
    del results["arms"]["rl"]["eval"]["held_out"]
    assert not tables.average_table(of(results)).rows


def test_one_model_is_called_by_its_name(results):
    results["run"] |= {"arms": ["base"], "model": "weights/Some-Model.gguf"}
    results["arms"] = {"base": results["arms"]["base"]}
    for table in [tables.average_table(of(results)), *tables.eval_tables(of(results)), *tables.diversity_tables(of(results))]:
        assert [row[0].text for row in table.rows] == ["Some-Model.gguf"]


def test_no_word_is_broken_on_a_narrow_screen(results):
    for width in (80, 60, 44):
        for table in tables.screen_tables(of(results)):
            lines = on_screen(table, width).splitlines()
            assert max(map(len, lines)) <= width
            assert all(word in " ".join(lines) for column in table.columns for word in column.split())


def test_prose_folds_before_a_state_or_a_time_does():
    rows = [[Cell("broken off"), Cell("generate-plain"), Cell("1 m 05 s"), Cell("64 samples, 12 correct, 3 truncated, 1,024 tokens")]]
    for width in (80, 64, 56):
        screen = on_screen(Table("Stages", ["state", "stage", "time", "what came of it"], rows, numbers=False), width)
        assert "broken off  generate-plain  1 m 05 s  64 samples, " in screen and max(map(len, screen.splitlines())) <= width


def test_names_cannot_become_markup():
    table = Table("[red]t", ["a|b"], [[Cell("[bold]x[/bold] | `y` *z*\nnext")]])
    assert "[bold]x[/bold] | `y` *z*" in on_screen(table) and "[red]t" in on_screen(table)
    lines = table.to_markdown().splitlines()
    assert lines[0] == r"| a\|b |" and lines[2] == r"| \[bold]x\[/bold] \| \`y\` \*z\* next |" and len(lines) == 3


def test_provenance_is_flat(results):
    rows = {row[0].text: row[1].text for row in tables.provenance_table(of(results)).rows}
    assert rows["seeds.rl"] == "1" and rows["devices"] == "cpu:0, cpu:1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 m 00 s"), (143.2, "2 m 23 s"), (3599.7, "1 h 00 m"), (4000, "1 h 06 m")],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


def test_a_rate_stands_beside_its_judges_errors(results):
    text = tables.judged_by(of(results))
    assert "judged by acts. On 139 labelled solutions its kappa with them is 0.74 [0.67, 0.81] over solution and heuristic and 0.40" in text
    assert "it finds 13 of 30 composed ones, and calls 8 of 109 others composed. Corrected for these errors" in text
    compositions = [entry["composition"] for arm in results["arms"].values() for entry in arm["eval"].values() if entry.get("composition")]
    for composition in compositions:
        composition["corrected"] = None
    assert "too little to correct a rate by" in tables.judged_by(of(results))
    for composition in compositions:
        composition["quality"] = None  # a version that didn't measure it
    assert "was not measured" in tables.judged_by(of(results))
