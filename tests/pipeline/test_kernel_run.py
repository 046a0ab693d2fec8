"""A run on a device that has a kernel of its own for attention, which is a CPU that says so."""

import json

import pytest

from jaxpolya.config.file import parse_config
from jaxpolya.models import kernel_choice, kernels
from jaxpolya.progress import Display
from jaxpolya.runs import pipeline


@pytest.mark.soak
def test_every_stage_takes_the_devices_kernel_and_says_so(tiny_run, tmp_path, monkeypatch):
    calls = set()

    def splash(*inputs, scale, window, cap):
        calls.add((inputs[0].shape[1], "rows" if inputs[3] else "prefill"))
        return kernels.cudnn(*inputs, scale=scale, window=window, implementation="xla")

    monkeypatch.setattr(kernels, "splash", splash)
    monkeypatch.setattr(kernel_choice, "PLATFORMS", {"splash": "cpu"})
    tree = tiny_run(arms=["polya+rl"])
    tree["model"]["compute_dtype"] = "bfloat16"
    results = pipeline.run(parse_config(tree), Display(quiet=True))
    assert results.to_json()["run"]["attention"] == "splash"
    assert (tree["rl"]["batching"]["row_tokens"], "rows") in calls
    assert any(kind == "prefill" and length != kernel_choice.LENGTH for length, kind in calls)
    manifests = sorted((tmp_path / "runs").rglob("stages/*/manifest.json"))
    assert {json.loads(manifest.read_text())["provenance"]["attention"] for manifest in manifests} == {"splash"}

    tree["model"]["attention"] = "xla"  # rounds otherwise, and is no other stage
    pipeline.run(parse_config(tree), Display(quiet=True))
    assert sorted((tmp_path / "runs").rglob("stages/*/manifest.json")) == manifests
    assert {json.loads(manifest.read_text())["provenance"]["attention"] for manifest in manifests} == {"splash"}
