"""compare.html: what differs between configurations, drawn along a number, or each by itself."""

import json
import re

import pytest
from browser import CHROMIUM, Browser

from jaxpolya.evaluation.passk import Interval
from jaxpolya.report.comparison import Point, Points
from jaxpolya.report.html.compare import write_compare_page
from jaxpolya.results import Evaluation


def around(mean):
    return Interval(mean=mean, low=mean - 0.05, high=mean + 0.05)


def point(settings, arm, mean, *, run=""):
    versus = None if arm == "base" else {"1": around(mean - 0.3)}
    evaluation = Evaluation(questions=40, samples=4, **{"pass": {1: around(mean), 4: around(mean + 0.2)}}, versus_base=versus)
    first = {"1": around(mean - 0.4)} if arm != "base" and mean != 0.4 else None
    return Point(run=run, settings=settings, arm=arm, question_set="sums", evaluation=evaluation, versus_first=first)


@pytest.fixture
def swept():
    """Two arms along a number."""
    arms = {"base": (0.3, 0.3, 0.3), "polya+rl": (0.4, 0.5, 0.6)}
    return Points(
        by="select.n",
        points=[point({"select.n": n}, arm, mean) for arm, means in arms.items() for n, mean in zip((1, 4, 16), means, strict=True)],
    )


def charts(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="page-data">(.*?)</script>', text, re.DOTALL).group(1))["charts"], text


def test_a_sweep_is_drawn_along_its_number(tmp_path, swept):
    drawn_charts, text = charts(write_compare_page(tmp_path / "compare.html", swept))
    assert set(drawn_charts) == {"first-sums-polya+rl", "base-sums-polya+rl", "along-sums-1", "along-sums-4"}
    assert [(row["name"], row["mean"]) for row in drawn_charts["first-sums-polya+rl"]["data"]["values"]] == [
        ("select.n=4", pytest.approx(10)), ("select.n=16", pytest.approx(20))
    ]  # fmt: skip
    along = drawn_charts["along-sums-1"]
    assert [row["step"] for row in along["data"]["values"]] == [1, 4, 16, 1, 4, 16]
    assert along["layer"][0]["encoding"]["x"]["scale"] == {"type": "log", "base": 2, "nice": False}
    assert "They differ in select.n." in text


def test_configurations_without_an_order_stand_by_themselves(tmp_path):
    named = [point({"rl.algorithm": name}, "rl", mean, run="<b>one</b>") for name, mean in (("grpo", 0.4), ("dapo", 0.5))]
    drawn_charts, text = charts(write_compare_page(tmp_path / "compare.html", Points(by="rl.algorithm", points=named)))
    assert set(drawn_charts) == {"first-sums-rl", "base-sums-rl", "along-sums-1-rl", "along-sums-4-rl"}
    assert [row["name"] for row in drawn_charts["along-sums-1-rl"]["data"]["values"]] == [
        "<b>one</b>, rl.algorithm=grpo", "<b>one</b>, rl.algorithm=dapo"
    ]  # fmt: skip
    assert "<b>one" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_draws_the_comparison(tmp_path, swept):
    path = write_compare_page(tmp_path / "compare.html", swept)
    with Browser() as browser:
        browser.open(path, 390)
        assert browser.evaluate("document.querySelectorAll('[data-drawn=yes] svg .mark-symbol path').length") >= 2 + 3 + 2 * 6
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth") and not browser.messages, browser.messages
