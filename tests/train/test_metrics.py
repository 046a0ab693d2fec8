"""The log of training steps: what a resumed stage keeps, and what it refuses to write."""

import json

import pytest

from jaxpolya.errors import RunError
from jaxpolya.train.metrics import StepLog


def test_a_resumed_log_keeps_the_steps_before_the_checkpoint(tmp_path):
    path = tmp_path / "steps.jsonl"
    log = StepLog(path, keep=0, primary=True)
    for step in range(3):
        log.append({"step": step, "loss": 1.0})
    log.close()
    path.write_text(path.read_text() + '{"step": 3, "lo')  # a kill tore this line
    log = StepLog(path, keep=2, primary=True)
    log.append({"step": 2, "loss": 0.5})
    assert [row["loss"] for row in log.close()] == [1.0, 1.0, 0.5]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_step_is_refused(tmp_path, value):
    log = StepLog(tmp_path / "sft-star-0" / "steps.jsonl", keep=0, primary=True)
    with pytest.raises(RunError, match=r"sft-star-0, step 4: grad_norm not finite.*lower its optimizer.learning_rate"):
        log.append({"step": 4, "loss": 1.0, "grad_norm": value})
    assert log.close() == []
