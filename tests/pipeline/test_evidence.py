"""What a run's page lets a reader look up, gathered from records that are made up: no model is run."""

import json

import pytest

from jaxpolya.config.file import parse_config
from jaxpolya.keys import Key
from jaxpolya.records import write_records
from jaxpolya.runs import evidence
from jaxpolya.runs.stages import Stage

SOURCE = [{"kind": "jsonl", "path": "none.jsonl"}]
SAMPLING = {"max_new_tokens": 8}
TREE = {
    "name": "made", "model": {"source": "none"}, "arms": ["base", "polya+rl"],
    "generate": {"questions": SOURCE, "sampling": SAMPLING},
    "select": {"n": 1},
    "sft": {"optimizer": {"learning_rate": 1e-3}, "batching": {"row_tokens": 8}, "batch_rows": 8},
    "rl": {
        "questions": SOURCE, "sampling": SAMPLING, "optimizer": {"learning_rate": 1e-3}, "batching": {"row_tokens": 8},
        "steps": 200, "prompts": 1, "group": 2,
    },
    "eval": {"questions": {"sums": SOURCE}, "sampling": SAMPLING, "samples": 4},
}  # fmt: skip


def sample(question, index, response, verdict="correct", *, tokens=(1, 2, 3), **more):
    shared = {"arm": "base", "stage": "eval", "prompt": "?", "logprobs": [-0.5] * len(tokens), "finish": "stop", "seed": 0}
    name = f"{question}/{more['slot']}#{index}" if "slot" in more else f"{question}#{index}"
    row = {"id": name, "question_id": question, "index": index, "response": response, "token_ids": list(tokens), "verdict": verdict}
    return {**shared, **row, "extracted": "3"} | more


@pytest.fixture
def run(tmp_path):
    """(configuration, a function that writes a stage's files, the stages)."""
    stages = {}

    def stage(key, stats=None, **files):
        directory = tmp_path / key.name
        directory.mkdir()
        for name, rows in files.items():
            write_records(directory / f"{name}.jsonl", rows)
        manifest = {"stage": key.name, "finished": "", "seconds": 1.0, "stats": stats or {}, "files": {}}
        (directory / "manifest.json").write_text(json.dumps(manifest))
        stages[key] = Stage(directory, key, {})
        return directory

    asked = [{"id": f"q{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(4)]
    for key in (Key("questions", "train"), Key("questions", "rl"), Key("questions", "eval", "sums")):
        stage(key, questions=asked)
    return parse_config(TREE), stage, stages


def test_like_responses_are_one_and_the_rest_is_counted(run):
    config, stage, stages = run
    many = [sample("q2", i, "It is 3.") for i in range(5)] + [
        sample("q2", 5 + i, f"Perhaps {i}", "wrong", extracted=str(i)) for i in range(9)
    ]
    audit = {"audit": {"all": {"examples": ["q2#3"]}}}
    stage(Key("eval", "base", "sums"), audit, samples=[*many, sample("q0", 0, "no", "unparseable", extracted=None, finish="length")])
    stage(
        Key("labels", "base", "sums"), labels=[{"sample_id": "q2#0", "labels": ["pattern"]}, {"sample_id": "q2#9", "labels": ["analogy"]}]
    )
    (question_set,) = evidence.gather(config, stages).sets
    assert [asked.id for asked in question_set.questions] == ["q0", "q2"] and question_set.total == 2
    first, second = question_set.questions
    assert first.cells["base"].answers[0].cut and first.cells["base"].answers[0].extracted is None
    cell = second.cells["base"]
    assert (cell.n, cell.correct, len(cell.answers), cell.hidden) == (14, 5, evidence.ANSWERS, 14 - 5 - (evidence.ANSWERS - 1))
    assert (cell.answers[0].text, cell.answers[0].count) == ("It is 3.", 5)
    assert cell.answers[0].remarks == [evidence.UNCONFIRMED] and cell.answers[0].labels == ["pattern"]
    assert second.labelled == {"base": {"pattern": 1}}, "of correct solutions alone"


def test_all_seeds_count_and_a_stage_that_they_share_counts_once(run, tmp_path):
    config, stage, stages = run
    config = config.model_copy(update={"arms": ["base", "rl"]})
    stage(Key("eval", "base", "sums"), samples=[sample("q2", i, "It is 3.") for i in range(4)])
    stage(
        Key("eval", "rl", "sums"), {"audit": {"all": {"examples": ["q2#0"]}}}, samples=[sample("q2", 0, "3"), sample("q2", 1, "4", "wrong")]
    )
    first = dict(stages)
    other = tmp_path / "other"
    other.mkdir()
    write_records(other / "samples.jsonl", [sample("q2", i, "So 3") for i in range(2)])
    stages[Key("eval", "rl", "sums")] = Stage(other, Key("eval", "rl", "sums"), {})
    (other / "manifest.json").write_text(json.dumps({"stage": "eval-rl-sums", "finished": "", "seconds": 1.0, "stats": {}, "files": {}}))
    cells = evidence.gather(config, first, [stages]).sets[0].questions[0].cells
    assert (cells["base"].n, cells["rl"].n, cells["rl"].correct) == (4, 4, 3)
    remarks = {answer.text: answer.remarks for answer in cells["rl"].answers}
    assert remarks["3"] and not remarks["So 3"], "an id of one seed's sample is not another's"


def test_a_right_response_is_shown_however_rare(run):
    config, stage, stages = run
    rows = [sample("q2", i, f"Perhaps {i}", "wrong") for i in range(20)] + [sample("q2", 20, "What is 2 + 1?", extracted="2 + 1")]
    stage(Key("eval", "base", "sums"), samples=rows)
    answers = evidence.gather(config, stages).sets[0].questions[0].cells["base"].answers
    assert [answer.verdict for answer in answers].count("correct") == 1
    assert answers[-1].remarks == ["not a literal of the reference's kind", "the answer is copied out of the question"]


def test_kept_responses_beside_those_that_are_not_with_the_reason(run):
    config, stage, stages = run
    drawn = [
        sample("q2", 0, "best", heuristic="analogy", slot=0),
        sample("q2", 1, "second", heuristic="analogy", slot=0),
        sample("q2", 0, "copy", heuristic="pattern", slot=1),
        sample("q2", 1, "other", heuristic="pattern", slot=1, tokens=(7, 8, 9)),
        sample("q2", 0, "no", "wrong", heuristic="symmetry", slot=2),
        sample("q2", 1, "on and on", heuristic="symmetry", slot=2, finish="length"),
    ]
    stage(Key("generate", "polya"), samples=drawn)
    row = {"question_id": "q2", "prompt": "?", "response": "best", "heuristic": "analogy", "slot": 0, "adherence": 0.5, "source": "polya"}
    scores = [{"sample_id": "q2/0#0", "adherence": 0.5}, {"sample_id": "q2/1#1", "adherence": 0.25}]
    stage(Key("select"), polya=[row], adherence=scores)
    (lesson,) = evidence.gather(config, stages).lessons
    assert lesson.tried == {"analogy": [2, 2, 1], "pattern": [2, 2, 0], "symmetry": [2, 1, 0]}
    by_text = {candidate.text: candidate for candidate in lesson.candidates}
    assert next(iter(by_text)) == "best" and by_text["best"].kept == ["polya"] and by_text["best"].why is None
    assert by_text["best"].adherence == 0.5 and by_text["other"].adherence == 0.25 and by_text["copy"].adherence is None
    assert {text: candidate.why for text, candidate in by_text.items() if candidate.why} == {
        "second": "another response of its slot was taken, for its adherence",
        "copy": "nearly the same as one that was taken",
        "other": "1 approaches were taken already, for its adherence",
        "no": "not correct (wrong)",
        "on and on": "cut at the token limit: it would teach not to end",
    }


def test_a_question_over_the_steps_of_rl(run):
    config, stage, stages = run
    directory = stage(Key("rl", "polya-rl"))
    for step in range(150):
        rows = [sample(f"q{step % 2}", i, f"Said {i * (step < 75)}", "wrong", step=step, reward=0.0, advantage=0.0) for i in range(2)]
        write_records(directory / "rollouts" / f"{step:06d}.jsonl", rows)
    write_records(directory / "rollouts" / "000149-1.jsonl", [sample("q3", 0, "refill", step=149, reward=1.0)])
    shown = evidence.gather(config, stages)
    assert shown.steps_read == {"polya+rl": (evidence.STEPS, 150)}
    steps = sorted(round.step for history in shown.histories for round in history.rounds["polya+rl"] if history.id != "q3")
    assert len(steps) == evidence.STEPS and (steps[0], steps[-1]) == (0, 149)
    assert {history.id for history in shown.histories} == {"q0", "q1", "q3"} and shown.histories_total == 3


def test_what_a_run_does_not_have_is_empty(run):
    config, stage, stages = run
    stage(Key("eval", "base", "sums"), samples=[sample("q0", 0, "1")])
    alone = {key: shown for key, shown in stages.items() if key.what == "eval" or key == Key("questions", "eval", "sums")}
    shown = evidence.gather(config, alone)
    assert not (shown.lessons or shown.histories or shown.fine_tuning or shown.heldout or shown.steps_read)
