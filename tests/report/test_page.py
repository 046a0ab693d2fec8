"""report.md: what it claims, what it refuses to claim, and that it is whole, repeatable and free of jax."""

import re
import subprocess
import sys

import pytest

from jaxpolya.report.page import findings, write_report
from jaxpolya.results import Results

of = Results.model_validate


def interval(mean, low, high):
    return {"mean": mean, "low": low, "high": high}


def two_arms(base, other, questions=50, versus_base=None, names=("base", "rl")):
    def arm(entry, **more):
        shared = {"questions": questions, "samples": 1, "truncated": 0.0, "unparseable": 0.0, "tokens_mean": 1.0}
        return {"eval": {"set": {**shared, "pass": {"1": entry}, **more}}, "sft": None, "rl": None}

    more = {"versus_base": {"1": versus_base}} if versus_base else {}
    return {"run": {"name": "run"}, "arms": {names[0]: arm(base), names[1]: arm(other, **more)}}


def test_a_whole_report(tmp_path, results, samples):
    path = write_report(tmp_path / "run", of(results), samples)
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "run/report.md" and text.startswith("# demo\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "What was run", "Results", "Diversity and composition", "Contamination",
        "What this run can and cannot show", "Audit of rewards", "Training", "Fine-tuning data", "Some responses", "Provenance",
    ]  # fmt: skip
    links = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(links) == 3 and all((path.parent / link).read_bytes().startswith(b"\x89PNG") for link in links)
    assert not list(path.parent.rglob("*.partial"))
    again = write_report(tmp_path / "again", of(results), samples)
    assert again.read_bytes() == path.read_bytes()


def test_shared_questions_are_shown_with_what_they_share(tmp_path, results):
    text = write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    assert "| train | chain_sum | 7,112 | 2 | 3 |" in text and "share 13 words in a row" in text and "may be memory" in text
    assert "- train `t1` and chain_sum `q1`: the whole question\n" in text
    assert "- train `t2` and chain_sum `q7`: `14 plums |x on the first day`\n" in text
    results["contamination"]["train"]["dropped"] = True
    assert "The shared ones were left out of training." in write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    results["contamination"]["train"] |= {"sets": {}, "examples": []}
    assert "Contamination" not in write_report(tmp_path, of(results), []).read_text(encoding="utf-8")


def test_the_audit_of_rewards(tmp_path, results):
    text = write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    part = text[text.index("## Audit of rewards") : text.index("## Training")]
    assert "- **Warning:** rl-polya-rl: 97.0% of the 100 paid answers of its last steps are no numbers.\n" in part
    assert "| generate-polya | 100 | 3.0 | 2.0 | 0.0 | 20.0 | 1.0 | 2.0 | 12.2 | 5.0 | 181 |\n" in part
    assert "| rl-polya-rl | 100 | 3.0→3.0 | 0.0→97.0 | 0.0→0.0 | 20.0→20.0 | 1.0→1.0 | 2.0→2.0 | 7.5→12.2 | 5.0→5.0 | 180→9 |\n" in part
    assert "| eval-polya-rl-chain_sum | 100 | 3.0 | 0.0 | 0.0 | 20.0 | 1.0 | 2.0 | 12.2 | 5.0 | 200→10 |\n" in part
    assert "- **Read the audit of rewards before believing a figure:** it warns of 2 things.\n" in text


def test_paid_responses_stand_side_by_side(tmp_path, results):
    text = write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    first, second = re.findall(r"^\| \*\*step.*$", text, re.MULTILINE)
    cells = re.split(r"(?<!\\)\|", first)
    assert len(cells) == 4, "two columns, and no mark in a response is one of the table's"
    assert cells[1].startswith(
        " **step 0:** What is 17 + 25?<br>**reference:** 42<br>**read as:** 42<br>**response:** Well \\| well. \\<b>So"
    )
    assert (
        cells[2].startswith(" **step 11:** What is 17 + 25?<br>**reference:** 42<br>**read as:** 17 + 25<br>") and "left out …" in cells[2]
    )
    assert "**read as:** 41" in second and second.endswith("|  |")


def test_no_finding_and_no_audit_are_said_or_left_out(tmp_path, results):
    for entry in results["audit"].values():
        entry["warnings"] = []
    text = write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    assert "No share is so large that it would cast doubt on the figures." in text and "Read the audit" not in text
    del results["audit"]  # a run of a version that had none
    assert "Audit of rewards" not in write_report(tmp_path, of(results), []).read_text(encoding="utf-8")


def test_accepting_what_was_not_worked_out_is_said(tmp_path, results):
    results["audit"] = {}
    results["config"] = {"verify": {"math": {"unevaluated": "refuse"}}}
    assert "not worked out" not in write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    results["config"]["verify"]["math"]["unevaluated"] = "accept"
    text = write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    assert "**Warning:** answers that were not worked out were accepted (verify.math.unevaluated: accept)" in text
    assert "it warns of 1 thing." in text


def test_a_run_of_the_base_alone(tmp_path, base_only):
    text = write_report(tmp_path, of(base_only), []).read_text(encoding="utf-8")
    assert "Only Tiny-1B was evaluated: there is nothing to compare it with." in text
    assert text.count("not drawn, since this run has no data for it") == 2
    assert "No arm was trained." in text and "No fine-tuning data was made." in text and "Some responses" not in text
    # 1 − 0.05^(1/20): what none out of 20 leaves possible.
    assert "Tiny-1B solved none of the questions at pass@4" in text and "up to 13.9 %" in text
    assert "comparisons" not in text and "trained once" not in text


def test_a_run_without_evaluation(tmp_path, results):
    for entry in results["arms"].values():
        entry["eval"] = {}
    text = write_report(tmp_path, of(results), []).read_text(encoding="utf-8")
    assert "No arm was evaluated, so nothing can be said about them." in text and "![pass@k" not in text and "plots/rl.png" in text


@pytest.mark.parametrize(
    ("other", "claim"),
    [
        (interval(0.9, 0.8, 1.0), "At pass@1, rl (+50.0 points, +30.0 to +70.0) is above base."),
        (interval(0.5, 0.45, 0.55), "At pass@1, no difference from base is shown for rl (+10.0 points, −5.0 to +25.0)."),
        (interval(0.1, 0.0, 0.2), "At pass@1, rl (−30.0 points, −50.0 to −10.0) is below base."),
    ],
)
def test_overlapping_intervals_show_no_difference(other, claim):
    assert f"  - {claim}\n" in findings(of(two_arms(interval(0.4, 0.3, 0.5), other)))


def test_a_paired_difference_decides_where_there_is_one():
    results = two_arms(interval(0.4, 0.3, 0.5), interval(0.5, 0.4, 0.6), versus_base=interval(0.1, 0.05, 0.15))
    text = findings(of(results))
    assert "rl (+10.0 points, +5.0 to +15.0) is above base" in text
    assert "pass@1 of an arm is known to about ±10.0 points." in text
    assert "difference from base is known to about ±5.0 points" in text


def test_without_base_the_first_arm_is_the_reference():
    results = two_arms(interval(0.4, 0.3, 0.5), interval(0.9, 0.8, 1.0), names=("star", "polya"), versus_base=interval(0, 0, 0))
    assert "polya (+50.0 points, +30.0 to +70.0) is above star" in findings(of(results))


def test_too_few_questions_are_not_compared():
    text = findings(of(two_arms(interval(0.0, 0.0, 0.0), interval(1.0, 1.0, 1.0), questions=9)))
    assert "fewer than 10 questions" in text and "above" not in text
    assert "base solved none of the questions" in text and "rl solved all of the questions" in text


def test_intervals_without_width_are_not_called_knowledge():
    text = findings(of(two_arms(interval(0.0, 0.0, 0.0), interval(0.0, 0.0, 0.0))))
    assert "no difference from base is shown for rl" in text and "base and rl solved none" in text and "known" not in text


def test_findings_of_a_whole_run(results):
    text = findings(of(results))
    assert "- **chain_sum** (120 questions, 16 samples each)\n" in text
    # Two sets, two k, three arms beside base.
    assert "- 12 comparisons" in text and "trained once" in text
    assert text.count("cut at the token limit, which holds pass@k down: base (14.0 %)") == 2


def test_responses_that_could_not_be_judged_are_a_finding(results):
    assert "could not be judged" not in findings(of(results))
    results["arms"]["rl"]["eval"]["chain_sum"]["harness_error"] = 0.02
    assert "the verifier failed on them; they count as failures: rl (2.0 %)." in findings(of(results))


def test_rollouts_are_one_of_each_kind_and_cannot_break_out(tmp_path, results, samples):
    samples.append({**samples[0], "response": "a second correct one"})
    text = write_report(tmp_path, of(results), samples).read_text(encoding="utf-8")
    part = text[text.index("## Some responses") : text.index("## Provenance")]
    assert re.findall(r"^### (.*)$", part, re.MULTILINE) == [
        "base: wrong, answer read as `32`",
        "polya+rl: correct, answer read as `42`",
        "polya+rl: unparseable, cut at the token limit",
    ]
    assert "a second correct one" not in part
    assert "````text\n```python\nprint(17 + 25)\n```\nIt is 32.\n````\n" in part
    assert "[… 10,200 characters left out …]" in part


def test_a_failed_write_leaves_every_file_whole(tmp_path, results, monkeypatch):
    path = write_report(tmp_path, of(results), [])
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    assert len(before) == 4

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, of(results), [])
    assert {file: file.read_bytes() for file in before} == before


def test_the_report_does_not_load_jax():
    code = "import sys; import jaxpolya.report.card; sys.exit('jax' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
