"""report.html: one file that runs nothing but its own scripts, whatever a model wrote, and that a browser draws without a complaint."""

import hashlib
import importlib.resources
import json
import re
import subprocess
import sys

import pytest
from browser import CHROMIUM, Browser

from jaxpolya.report.html import charts, figures, write_page
from jaxpolya.report.html.document import LIBRARIES
from jaxpolya.report.html.evidence import (
    LONGEST,
    Answer,
    Candidate,
    Cell,
    EvaluatedQuestion,
    Evidence,
    History,
    Lesson,
    QuestionSet,
    Round,
    Training,
    cut,
    fitting,
    plain,
    size,
)
from jaxpolya.report.html.series import describe, series
from jaxpolya.report.html.style import styles
from jaxpolya.results import Results

ATTACKS = (
    "</script><script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<!--<script>",
    "]]>&amp;&#60;b&#62;\u2028\u2029\x00\\",
    "[x](javascript:window.hit=1) ![y](http://127.0.0.1:9/z.png) {{ 7 * 7 }} {% raw %}",
    "'; window.hit = 1; //",
)
HOSTILE = "\n".join(ATTACKS)


def asked(i, **cells):
    return EvaluatedQuestion(id=f"q{i}", question=f"What is {i} + 1? {HOSTILE}", reference=str(i + 1), cells=cells)


def cell(correct, text=HOSTILE):
    answers = [
        Answer(text=text, count=3, verdict="correct", extracted=HOSTILE, remarks=["copied out of the question"], labels=["analogy"]),
        Answer(text="no", count=1, verdict="wrong", cut=True, detail=HOSTILE),
    ]
    return Cell(n=8, correct=correct, answers=answers, hidden=4)


@pytest.fixture
def evidence():
    """A little of everything, hostile wherever a model or a data set writes."""
    questions = [asked(i, base=cell(i), rl=cell(8 - i)) for i in range(3)]
    labelled = EvaluatedQuestion(**{**vars(questions[0]), "id": "q9", "labelled": {"rl": {"analogy": 3}}})
    lost = asked(7, base=Cell(n=8, correct=2), rl=Cell(n=8, correct=0))
    kept = Candidate(text=HOSTILE, verdict="correct", heuristic="analogy", slot=0, adherence=0.25, kept=["polya"])
    left = Candidate(text="7", verdict="wrong", heuristic="pattern", slot=1, why="not correct (wrong)")
    rounds = [
        Round(step=step, n=4, correct=step, reward=step / 4, answers=[Answer(text=HOSTILE, count=4, verdict="wrong")]) for step in (0, 2)
    ]
    return Evidence(
        sets=[
            QuestionSet(name="chain_sum", total=9, questions=[*questions, labelled, lost]),
            QuestionSet(name="held_out", total=0, questions=[]),
        ],
        lessons=[
            Lesson(id="t0", question=HOSTILE, reference="3", tried={"analogy": [2, 1, 1], "pattern": [2, 0, 0]}, candidates=[kept, left])
        ],
        lessons_total=5,
        histories=[History(id="r0", question=HOSTILE, reference="3", rounds={"rl": rounds})],
        histories_total=1,
        steps_read={"rl": (2, 12)},
        fine_tuning=[Training(name="polya", series={"loss": [(0, 1.5), (1, 1.0)], "tokens": [(0, 90.0), (1, 80.0)]})],
        heldout={"polya": (1.5, 1.25)},
    )


@pytest.fixture
def page(tmp_path, results, evidence):
    results["run"]["name"] = "<demo & run>"
    return write_page(tmp_path / "report.html", Results.model_validate(results), evidence)


def test_nothing_that_a_model_wrote_is_markup(page):
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [' type="application/json" id="page-data"', *[""] * (1 + len(LIBRARIES))]
    written = text.replace("".join(body for _, body in scripts[1:]), "")
    for _, body in scripts[1:]:
        written = written.replace(body, "")
    assert "<img" not in written and "<!--" not in written and "<title>&lt;demo &amp; run&gt;</title>" in written
    data = json.loads(scripts[0][1])
    assert data["sets"][0]["questions"][0]["cells"]["base"]["answers"][0]["text"] == HOSTILE
    assert "<" not in scripts[0][1]


def test_the_page_is_whole_and_loads_nothing(page, tmp_path, results, evidence):
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text).group(1)
    assert policy.startswith("default-src &#39;none&#39;; script-src &#39;sha256-") and "unsafe-eval" not in policy
    assert policy.count("sha256-") == 1 + len(LIBRARIES) and "unsafe-inline" not in policy.split(";")[1]
    assert not re.findall(r"<(?:link|iframe|object|embed|base|form)\b|<[a-z]+[^>]*\ssrc\s*=", text.split("<script")[0])
    assert "sourceMappingURL" not in text and len(text.encode()) < 2_000_000
    again = write_page(tmp_path / "again.html", Results.model_validate(results), evidence)
    assert again.read_bytes() == page.read_bytes() and not list(tmp_path.glob(".*partial"))


def test_sections_that_have_nothing_to_say_are_left_out(tmp_path, base_only):
    text = write_page(tmp_path / "report.html", Results.model_validate(base_only), Evidence()).read_text(encoding="utf-8")
    sections = re.findall(r'<section id="(\w+)">', text)
    assert sections == ["conclusion", "results", "run"]
    assert re.findall(r'<a href="#(\w+)">', text) == sections
    assert "Only Tiny-1B was evaluated" in text


def test_what_doesn_t_fit_is_counted_and_said(page):
    text = " ".join(page.read_text(encoding="utf-8").split("<script")[0].split())
    assert "Of the 9 questions of chain_sum, 5 drawn at random are here." in text
    assert (
        "The responses to 1 questions of chain_sum didn&#39;t fit" in text or "The responses to 1 questions of chain_sum didn't fit" in text
    )
    assert "Of rl, the rollouts of 2 steps are read, evenly spread over 12." in text
    assert "1 of 5 questions, drawn at random, fit into this file." in text


def test_what_is_shown_is_drawn_at_random_and_fits():
    questions = [asked(i, base=cell(1)) for i in range(20)]
    whole = size(questions[0])
    kept = fitting(questions, 5 * whole + 20, seed=0)
    assert [q.id for q in kept] == [q.id for q in fitting(questions, 5 * whole + 20, seed=0)] and 4 <= len(kept) <= 5
    assert kept != questions[: len(kept)] and kept == sorted(kept, key=lambda q: int(q.id[1:]))
    bare = fitting(questions, 5 * whole + 20, seed=0, bare=lambda q: EvaluatedQuestion(id=q.id, question="", reference="", cells={}))
    assert len(bare) == 20 and sum(bool(q.cells) for q in bare) == len(kept)
    assert fitting(questions, 10**9, seed=0) == questions


def test_json_says_nothing_that_is_empty_and_cuts_what_is_long():
    answer = Answer(text="7", count=1, verdict="wrong", reward=0.0, advantage=-0.123456789)
    assert plain(answer) == {"text": "7", "count": 1, "verdict": "wrong", "reward": 0.0, "advantage": -0.1235}
    assert plain(Cell(n=3, correct=0)) == {"n": 3, "correct": 0}
    long = cut("a" * LONGEST + "bc")
    assert "[… 2 characters left out …]" in long and long.endswith("abc") and cut("a" * LONGEST) == "a" * LONGEST


def test_arms_differ_without_colour():
    looks = styles(["base", "rl", "star", "star+rl", "polya", "polya+rl", "wrong", "wrong+rl", "external", "external+rl"])
    assert len({(look.shape, look.filled) for look in looks.values()}) == len(looks)
    assert all((look.dash == [1, 0]) == look.filled for look in looks.values())
    many = styles([f"run {i}" for i in range(16)], arms=False)
    assert len({(look.shape, look.filled, tuple(look.dash)) for look in many.values()}) == len(many)


def test_long_trainings_are_thinned_and_seeds_averaged():
    points = [(step, float(step % 2)) for step in range(1000)]
    thinned = charts.thin(points)
    assert len(thinned) <= charts.POINTS and thinned[-1][0] == 999
    assert sum(value for _, value in thinned) / len(thinned) == pytest.approx(0.5, abs=0.01)
    drawn = charts.curves("k", "t", "", "", {"rl": [[(0, 1.0), (1, 3.0)], [(0, 3.0)]]}, styles(["rl"])).spec
    assert [(row["step"], row["mean"]) for row in drawn["data"]["values"]] == [(0, 2.0), (1, 3.0)]
    assert {row["seed"] for row in drawn["layer"][0]["data"]["values"]} == {0, 1}


def test_doses_begin_at_the_model_that_rl_began_with(results):
    arms = {name: entry for name, entry in Results.model_validate(results).arms.items() if name in ("base", "rl")}
    early = {4: {"chain_sum": arms["rl"].eval["chain_sum"]}}
    arms["rl"] = arms["rl"].model_copy(update={"doses": early})
    first, last, vendi, composed = figures.doses("chain_sum", arms, styles(list(arms)), 12)
    assert [row["step"] for row in first.spec["data"]["values"]] == [0, 4, 12]
    assert first.spec["data"]["values"][0]["mean"] == 100 * arms["base"].eval["chain_sum"].pass_[1].mean
    assert (first.title, last.title) == ("chain_sum: pass@1 by dose", "chain_sum: pass@16 by dose")
    measured = arms["rl"].eval["chain_sum"]
    assert vendi.spec["data"]["values"][-1]["mean"] == measured.diversity.vendi.mean
    assert composed.spec["data"]["values"][-1]["mean"] == 100 * measured.composition.rate.mean
    assert not figures.doses("held_out", arms, styles(list(arms)), 12) and not figures.doses("chain_sum", {"base": arms["base"]}, {}, 12)


def test_a_matrix_of_many_questions_is_spaced_evenly_and_says_so():
    many = [asked(i, base=Cell(n=8, correct=i % 9)) for i in range(1000)]
    chart = figures.question_matrix(QuestionSet(name="s", total=1000, questions=many), ["base"])
    shares = [row["share"] for row in chart.spec["data"]["values"]]
    assert len(shares) == figures.COLUMNS and shares == sorted(shares, reverse=True) and {shares[0], shares[-1]} == {0.0, 1.0}
    assert "200 of 1,000 questions, evenly spaced in this order." in chart.words
    assert len(json.dumps(chart.spec)) < 60_000


def test_a_log_s_numbers_are_named_and_its_looks_are_shown():
    rows = [
        {"step": 0, "reward": 0.5, "odd": 1, "on": True, "audit": {"paid": 3}},
        {"step": 1, "reward": None, "validation": {"pass@1": 0.25}},
    ]
    points = series(rows)
    assert points == {"reward": [(0, 0.5)], "odd": [(0, 1.0)], "validation.pass@1": [(1, 0.25)]}
    main, more = figures._curves("rl", {"rl": [points]}, styles(["rl"]))
    assert [chart.title for chart in main] == ["Reward", "Validation: pass@1"] and [chart.title for chart in more] == ["odd"]
    assert describe("loss", "sft").main and not describe("loss", "rl").main


def test_the_vendored_files_are_those_of_the_registry():
    vendor = importlib.resources.files("jaxpolya.report.html") / "vendor"
    table = (vendor / "README.md").read_text(encoding="utf-8")
    licences = (vendor / "LICENSES.txt").read_text(encoding="utf-8")
    for name in LIBRARIES:
        file, package, version, licence, digest = re.search(
            rf"^\| ({name}\.min\.js) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", table, re.M
        ).groups()
        script = (vendor / file).read_bytes()
        assert hashlib.sha256(script).hexdigest() == digest and b"</script" not in script and b"<!--" not in script and b"\r" not in script
        assert f"{package} {version} ({licence})" in licences


def test_the_page_does_not_load_jax():
    code = "import sys; import jaxpolya.report.html, jaxpolya.runs.evidence; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_draws_the_page(page, tmp_path):
    with Browser() as browser:
        for width in (1280, 390):
            browser.open(page, width)
            places = browser.evaluate(
                "[...document.querySelectorAll('[data-chart]')].filter((e) => !e.closest('details:not([open])')).length"
            )
            drawn = browser.evaluate(
                "[...document.querySelectorAll('[data-drawn=yes] svg')]"
                ".filter((e) => e.querySelector('.mark-symbol path, .mark-rect path')).length"
            )
            assert drawn == places > 20
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page itself scrolls sideways"
            widest = browser.evaluate(
                "Math.max(...[...document.querySelectorAll('.plot svg')].map((e) => e.getBoundingClientRect().right))"
            )
            assert widest <= width
            # Everything that can be opened is opened.
            browser.evaluate("document.querySelectorAll('td.question button').forEach((e) => e.click())")
            browser.evaluate("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
            browser.wait("document.querySelectorAll('[data-chart]').length + 1 === document.querySelectorAll('[data-drawn=yes]').length")
            assert browser.evaluate("document.querySelector('.answer pre').textContent") == HOSTILE
            assert browser.evaluate("document.querySelectorAll('main img').length + (window.hit || 0)") == 0
            browser.wait("document.documentElement.scrollWidth <= innerWidth")  # a plot takes a moment to fit in
            browser.screenshot(tmp_path / f"{width}.png")
            assert (tmp_path / f"{width}.png").stat().st_size > 50_000
            assert not browser.messages, browser.messages
            assert {url.split(":")[0] for url in browser.asked} <= {"file", "data", "about"} and len(browser.asked) <= 3
        browser.evaluate(
            "(() => { const e = document.querySelector('input[type=search]');"
            "e.value = 'What is 2 + 1'; e.dispatchEvent(new Event('input')); })()"
        )
        assert browser.evaluate("document.querySelector('[data-lookup=questions] .count').textContent") == "1 of 5 questions"
