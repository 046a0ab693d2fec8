"""The registry: every entry reads rows of the form in which its set is published, and local copies stand in for the hub."""

import json
from pathlib import Path

import pytest
import yaml

from jaxpolya.config import GymSource, HubSource, JsonlSource
from jaxpolya.data.questions import load_questions
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.evaluation.benchmarks import load_registry
from jaxpolya.polya.prompts import ask
from jaxpolya.records import write_records

SHARED = Path(__file__).parents[3] / "shared" / "data" / "questions"
REGISTRY = load_registry()

# Rows of our own making under each set's published columns, and what must become of them: parts of the record, and of the prompt.
NUMBER, BOX, LETTER = 'End with "The answer is"', "\\boxed{}", "the letter of your choice"
CHECK = "def check(f):\n    assert f() == 1\n"
MUSR = ({"narrative": "Ann was out.", "question": "Who did it?", "choices": "['Ann', 'Bob']", "answer_index": 1, "answer_choice": "Bob"},
        {"context": "Ann was out.", "answer": "B", "choices": ["Ann", "Bob"], "verifier": "choice"}, LETTER)  # fmt: skip
PUBLISHED = {
    "gsm8k": ({"question": "2 pens?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}, {"answer": "2", "extraction": "number"}, NUMBER),
    "math500": (
        {"problem": "Find $x$.", "solution": "So $\\boxed{3}$.", "answer": "3", "subject": "Algebra", "level": 1, "unique_id": "t/1"},
        {"id": "t/1", "question": "Find $x$.", "answer": "3", "extraction": "statement"}, BOX,
    ),
    "aime24": ({"id": 60, "problem": "Find n.", "solution": "…", "answer": "033", "url": "u"}, {"id": "60", "answer": "033"}, BOX),
    "aime25": ({"id": "0", "problem": "Find n.", "answer": "70"}, {"question": "Find n.", "answer": "70"}, BOX),
    "amc23": ({"id": 0, "question": "Find n.", "answer": "27.0", "url": "u"}, {"answer": "27.0"}, BOX),
    "minerva": ({"question": "How hot?", "answer": "1.6"}, {"answer": "1.6"}, BOX),
    "olympiadbench": (
        {"id": 1606, "question": "Find k.", "solution": ["…"], "final_answer": ["$2k$"], "context": None, "image_1": None},
        {"id": "1606", "answer": "$2k$", "context": None}, BOX,
    ),
    "svamp": (
        {"ID": "chal-1", "Body": "Ann has 3 pens.", "Question": "How many?", "Equation": "( 3.0 )", "Answer": "3.0", "Type": "Addition"},
        {"id": "chal-1", "question": "Ann has 3 pens. How many?", "answer": "3.0"}, NUMBER,
    ),
    "asdiv": (
        {"body": "Ann has 9 pens.", "question": "How many?", "formula": "9=9", "answer": "9 (pens)", "solution_type": "Addition"},
        {"question": "Ann has 9 pens. How many?", "answer": "9"}, NUMBER,
    ),
    "mawps": ({"id": "m_1", "question": "How many?", "result": "7/2", "result_float": 3.5}, {"id": "m_1", "answer": "3.5"}, NUMBER),
    "humaneval": (
        {"task_id": "T/0", "prompt": "def one():\n", "canonical_solution": "return 1", "test": CHECK, "entry_point": "one"},
        {
            "id": "T/0", "question": "def one():\n", "verifier": "code",
            "tests": {"prompt": "def one():\n", "tests": CHECK, "entry_point": "one"},
        }, "```python",
    ),
    "mbpp": (
        {
            "task_id": 11, "text": "Add one.", "code": "def f(x): return x + 1", "test_list": ["assert f(1) == 2", "assert f(2) == 3"],
            "test_setup_code": "", "challenge_test_list": [],
        },
        {"id": "11", "answer": "def f(x): return x + 1", "tests": ["assert f(1) == 2", "assert f(2) == 3"]},
        "assert f(1) == 2",
    ),
    "musr_murder_mysteries": MUSR, "musr_object_placements": MUSR, "musr_team_allocation": MUSR,
}  # fmt: skip


def published_copy(directory: Path, source: HubSource, rows: list[dict]) -> None:
    """A directory as `hf download` leaves it: data files, and a card that says which are which subset and split."""
    directory.mkdir()
    splits = source.split.split("+")
    for split, row in zip(splits, rows, strict=True):
        (directory / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    files = [{"split": split, "path": f"{split}.jsonl"} for split in splits]
    card = {"configs": [{"config_name": source.subset or "default", "data_files": files}]}
    (directory / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")


def test_the_registry_has_what_it_promises():
    hub = {benchmark.key for benchmark in REGISTRY.benchmarks if isinstance(benchmark.sources[0], HubSource)}
    assert hub == PUBLISHED.keys() and len(REGISTRY.keys) == len(hub) + 5
    assert all(benchmark.key.startswith("gym_") for benchmark in REGISTRY.benchmarks if benchmark.key not in hub)


def test_the_page_lists_the_registry_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 6}
    assert list(rows) == REGISTRY.keys
    for benchmark in REGISTRY.benchmarks:
        for source in benchmark.sources:
            parts = [source.name, source.subset or "", source.split] if isinstance(source, HubSource) else [source.name]
            assert all(part in rows[benchmark.key] for part in parts), benchmark.key
        assert benchmark.verifier == "code" or f"`{benchmark.extraction}`" in rows[benchmark.key]
        assert (benchmark.verifier if benchmark.verifier != "reasoning_gym" else "its scorers") in rows[benchmark.key]


def test_the_page_s_example_works(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (tmp_path / "own.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    (contest,) = load_registry(tmp_path / "own.yaml").pick(["contest"])
    row = {"preamble": "Let n be 3.", "problem": "Find 2n.", "solutions": ["6", "six"]}
    (tmp_path / "contest.jsonl").write_text(json.dumps(row) + "\n")
    (question,) = load_questions(contest.questions(tmp_path)).questions
    assert (question.question, question.answer) == ("Let n be 3.\n\nFind 2n.", "6")


@pytest.mark.parametrize("key", PUBLISHED)
def test_rows_as_they_are_published(key, tmp_path):
    row, expected, asks = PUBLISHED[key]
    (benchmark,) = REGISTRY.pick([key])
    (source,) = benchmark.sources
    # A file of the published rows, the hub's own directory, and a file of our records all give the same question.
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / f"{key}.jsonl").write_text(json.dumps(row) + "\n")
    (first,) = load_questions(benchmark.questions(tmp_path / "file")).questions
    assert {name: getattr(first, name) for name in expected} == expected
    assert first.verifier == benchmark.verifier and first.extraction == benchmark.extraction
    assert asks in ask(first)
    write_records(tmp_path / "ours" / f"{key}.jsonl", [first])
    (again,) = load_questions(benchmark.questions(tmp_path / "ours")).questions
    if benchmark.verifier != "choice":  # ours is the letter, which a reader of choices takes as it is
        assert again.answer == first.answer
    assert (again.id, again.question, again.tests) == (first.id, first.question, first.tests) and ask(again) == ask(first)
    if key in ("gsm8k", "svamp", "mbpp", "musr_object_placements"):  # one of each shape, since `datasets` takes its time
        published_copy(tmp_path / key, source, [row, row | {"Body": "Bob has 4 pens."}] if key == "svamp" else [row])
        copied, *others = load_questions(benchmark.questions(tmp_path)).questions
        assert len(others) == (key == "svamp")
        assert (copied.answer, copied.tests, copied.choices) == (first.answer, first.tests, first.choices)


def test_answers_of_several_parts_are_left_out_and_counted(tmp_path):
    (benchmark,) = REGISTRY.pick(["asdiv"])
    rows = [
        {"body": f"{i} pens.", "question": "How many?", "answer": answer}
        for i, answer in enumerate(["9 (pens)", "2:3", "4 (red); 5 (blue)"])
    ]
    (tmp_path / "asdiv.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_questions(benchmark.questions(tmp_path))
    assert [question.answer for question in loaded.questions] == ["9", "2:3"] and loaded.dropped == {"answer of another form": 1}


@pytest.mark.parametrize("key", [key for key in REGISTRY.keys if key.startswith("gym_")])
def test_reasoning_gym_suites_make_questions_that_their_scorers_accept(key):
    from jaxpolya.verify.judge import Item, judge_answer

    (benchmark,) = REGISTRY.pick([key])
    sources = benchmark.questions(limit=len(benchmark.sources))
    small = [source.model_copy(update={"size": 3, "shuffle": None}) for source in sources if isinstance(source, GymSource)]
    for question in load_questions(small).questions:
        assert question.verifier == "reasoning_gym"
        assert judge_answer(Item.of(question, "", "x"), question.answer).verdict == "correct", question


def test_a_limit_is_drawn_evenly_over_the_sources_and_always_the_same():
    (benchmark,) = REGISTRY.pick(["gym_arithmetic"])
    limited = benchmark.questions(limit=7)
    assert [source.limit for source in limited] == [2, 2, 1, 1, 1] and {source.shuffle for source in limited} == {0}
    assert len(benchmark.questions(limit=2)) == 2


def test_unknown_benchmarks_are_answered_with_the_nearest():
    assert [benchmark.key for benchmark in REGISTRY.pick(["svamp", "gsm8k", "svamp"])] == ["svamp", "gsm8k"]
    for wrong, says in (("gms8k", "did you mean gsm8k?"), ("MATH500", "did you mean math500?"), ("zzz", "there are gsm8k, math500")):
        with pytest.raises(ConfigError, match=f"no benchmark '{wrong}'; {says[:12]}") as refused:
            REGISTRY.pick([wrong])
        assert says in str(refused.value)


def test_a_file_of_one_s_own_adds_and_replaces(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "benchmarks:\n"
        "  - key: gsm8k\n    title: half of it\n    verifier: math\n    sources: [{kind: jsonl, path: half.jsonl}]\n"
        "  - key: riddles\n    title: Riddles\n    verifier: choice\n    extraction: tag\n"
        "    sources: [{kind: tfds, name: riddles, split: test}]\n"
    )
    registry = load_registry(own)
    assert registry.keys == [*REGISTRY.keys, "riddles"]
    replaced, added = registry.pick(["gsm8k", "riddles"])
    assert replaced.title == "half of it" and isinstance(replaced.sources[0], JsonlSource)
    assert added.questions()[0].verifier == "choice" and added.questions()[0].extraction == "tag"
    assert load_registry().pick(["gsm8k"])[0].title != "half of it"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "own.yaml: No such file"),
        ("benchmarks: 3", "benchmarks: input should be a valid array"),
        ("benchmark: []", "benchmark: no such key; did you mean benchmarks?"),
        ("benchmarks: [{key: a, title: A, verifier: maths, sources: []}]", "'maths' is not one of"),
        ("benchmarks: [{key: A b, title: A, verifier: math, sources: [{kind: jsonl, path: x}]}]", "can't be a name"),
        ("benchmarks: [{key: a, titel: A, verifier: math, sources: [{kind: jsonl, path: x}]}]", "titel: no such key; did you mean title?"),
        ("benchmarks: [{key: a, title: A, verifier: math, sources: [{kind: hub, nmae: x}]}]", "nmae: no such key; did you mean name?"),
        ("benchmarks: [{key: a, title: A, verifier: math, sources: []}]", "sources: list should have at least 1 item"),
        (
            "benchmarks: [{key: a, title: A, verifier: math, sources: [{kind: jsonl, path: x, answer_pattern: '(a)(b)'}]}]",
            "answer_pattern has 2 groups",
        ),
        ("benchmarks: [{key: a, title: A, verifier: math, sources: [{kind: jsonl, path: x, answer_pattern: '('}]}]", "not a regular"),
        (
            "benchmarks:\n"
            "- {key: a, title: A, verifier: math, sources: [{kind: jsonl, path: x}]}\n"
            "- {key: a, title: B, verifier: math, sources: [{kind: jsonl, path: y}]}",
            "benchmark a is there more than once",
        ),
    ],
)
def test_a_file_of_one_s_own_that_is_wrong(tmp_path, text, says):
    own = tmp_path / "own.yaml"
    if text is not None:
        own.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_registry(own)
    assert says in str(refused.value) and str(own) in str(refused.value)


def test_local_copies_that_are_not_there(tmp_path):
    (benchmark,) = REGISTRY.pick(["amc23"])
    assert benchmark.questions(tmp_path) == benchmark.questions()
    with pytest.raises(InputError, match="local copies of benchmarks"):
        benchmark.questions(tmp_path / "nowhere")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("key", "file", "rows"),
    [("gsm8k", "gsm8k_test", 1319), ("math500", "math500", 500), ("aime24", "aime24", 30), ("amc23", "amc23", 40),
     ("minerva", "minerva_math", 272), ("olympiadbench", "olympiadbench", 674), ("svamp", "svamp", 1000)],
)  # fmt: skip
def test_real_sets_as_local_copies(tmp_path, key, file, rows):
    (tmp_path / f"{key}.jsonl").symlink_to(SHARED / f"{file}.jsonl")
    (benchmark,) = REGISTRY.pick([key])
    loaded = load_questions(benchmark.questions(tmp_path))
    assert len(loaded.questions) + loaded.dropped.get("repeated question", 0) >= rows
    assert set(loaded.dropped) <= {"repeated question"}
