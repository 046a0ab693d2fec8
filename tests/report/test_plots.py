"""Plots: what they draw, what they leave out, and that an arm looks the same everywhere."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxpolya.arms import ARMS
from jaxpolya.report import plots
from jaxpolya.results import Results

of = Results.model_validate


def curves(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_pass_at_k_draws_every_arm_and_interval(results):
    figure = plots.pass_at_k(of(results))
    assert len(figure.axes) == 2
    for axes, name in zip(figure.axes, ("chain_sum", "held_out"), strict=True):
        assert axes.get_title().startswith(name) and axes.get_xlabel() and "%" in axes.get_ylabel()
        assert axes.get_xscale() == "log" and axes.get_ylim() == (0, 100)
        drawn = curves(axes)
        assert list(drawn) == list(results["arms"]) and len(axes.collections) == len(results["arms"])
        for arm, line in drawn.items():
            expected = results["arms"][arm]["eval"][name]["pass"]
            np.testing.assert_allclose(line.get_xydata(), [[int(k), 100 * entry["mean"]] for k, entry in expected.items()])


def test_spare_panels_are_removed(results):
    entry = results["arms"]["base"]["eval"]["held_out"]
    results["arms"]["base"]["eval"] = {f"set{i}": entry for i in range(4)}
    results["arms"] = {"base": results["arms"]["base"]}
    assert len(plots.pass_at_k(of(results)).axes) == 4


def test_arms_stay_apart_and_keep_their_looks(results):
    looks = {arm: (to_hex(style["color"]), style["linestyle"]) for arm in ARMS if (style := plots.arm_line(arm))}
    assert len(set(looks.values())) == len(ARMS)
    for axes in plots.pass_at_k(of(results)).axes + plots.rl_curves(of(results)).axes:
        for arm, line in curves(axes).items():
            assert to_hex(line.get_color()) == looks[arm][0]
            assert line.is_dashed() == (not arm.endswith("rl"))


def test_rl_curves_hold_reward_and_length_and_gaps(results):
    results["arms"]["rl"]["rl"]["steps"][3]["reward"] = None
    reward, length = plots.rl_curves(of(results)).axes
    assert list(curves(reward)) == ["rl", "star+rl", "polya+rl"] and "reward" in reward.get_ylabel() and "tokens" in length.get_ylabel()
    drawn = curves(reward)["rl"].get_ydata()
    assert math.isnan(drawn[3]) and np.isfinite(np.delete(drawn, 3)).all()
    steps = results["arms"]["polya+rl"]["rl"]["steps"]
    np.testing.assert_allclose(curves(length)["polya+rl"].get_ydata(), [step["length"] for step in steps])


def test_long_curves_are_smoothed_over_their_steps(results):
    steps = [{"step": i, "reward": float(i % 2), "length": 10.0} for i in range(100)]
    steps[50]["reward"] = None
    results["arms"] = {"rl": {"eval": {}, "sft": None, "rl": {"steps": steps}}}
    faint, mean = plots.rl_curves(of(results)).axes[0].get_lines()
    assert faint.get_alpha() < 0.5 and list(faint.get_ydata()[:4]) == [0, 1, 0, 1]
    drawn = mean.get_ydata()
    # 5 steps to each side, of which the odd ones are 1: six of 15 … 25, three of 0 … 5, and six of the ten around the gap.
    assert drawn[20] == pytest.approx(6 / 11) and drawn[0] == pytest.approx(3 / 6) and drawn[50] == pytest.approx(6 / 10)


def test_sources_are_stacked_and_annotated(results):
    results["selection"]["wrong"] = {"rows": 5, "questions": 5, "per_question": {"1": 5}, "by_heuristic": {"analogy": 5}}
    left, right = plots.sources(of(results)).axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[:2] == ["plain", "analogy"] and len(names) == 9
    analogy = [bar for bar in left.patches if bar.get_width() and round(bar.get_y() + bar.get_height() / 2) == 1]
    assert [(bar.get_x(), bar.get_width()) for bar in analogy] == [(0, 31), (31, 5)]
    assert [bar.get_width() for bar in right.patches][:2] == pytest.approx([100 * 110 / 480, 100 * 62 / 240])
    assert right.texts[0].get_text() == "110 of 480"


def test_what_is_absent_is_not_drawn(base_only):
    drawn = plots.plots(of(base_only))
    assert {name for name, png in drawn.items() if png} == {"pass_at_k.png"}
    assert all(png is None for png in plots.plots(of({"run": {"name": "bare"}})).values())


def test_the_same_results_give_the_same_bytes(results):
    first, second = plots.plots(of(results)), plots.plots(of(results))
    assert all(png.startswith(b"\x89PNG") for png in first.values()) and first == second
