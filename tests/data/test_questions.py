"""Question sources: every kind gives the same record, and a mistake is answered with what to write instead."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from jaxpolya.config import AnySource, GymSource, HubSource, JsonlSource, TfdsSource
from jaxpolya.data.questions import load_questions
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.records import Question, read_records, write_records

SHARED = Path(__file__).parents[3] / "shared" / "data" / "questions"


def write(path: Path, *rows: dict | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def jsonl(path: Path, **fields) -> JsonlSource:
    return JsonlSource(kind="jsonl", path=path, **fields)


def only(path: Path, *rows: dict, **fields) -> Question:
    """The one question of a file with these rows."""
    (question,) = load_questions([jsonl(write(path, *rows), **fields)]).questions
    return question


@pytest.fixture
def file(tmp_path):
    return tmp_path / "set.jsonl"


# Rows --------------------------------------------------------------------------------------------------------------------


def test_a_plain_row(file):
    question = only(file, {"question": " How many? ", "answer": " 12 "})
    assert question == Question(id="set-1", question="How many?", answer="12", source="set")
    assert (question.verifier, question.extraction) == ("math", "statement")


@pytest.mark.parametrize(
    ("given", "kept"), [(27, "27"), (27.0, "27.0"), ("27.0", "27.0"), (True, "True"), (["\\frac12"], "\\frac12"), (10**30, "1" + "0" * 30)]
)
def test_answers_become_text_as_they_are_written(file, given, kept):
    assert only(file, {"question": "?", "answer": given}).answer == kept


def test_columns_ids_and_answer_mark(file):
    row = {"uid": 7, "problem": "2+2?", "solution": "#### no, wait\n2 + 2 = 4\n#### 4", "meta": {"story": "Two pairs."}}
    columns = {"id": "uid", "question": "problem", "answer": "solution", "context": "meta.story"}
    question = only(file, row, columns=columns, answer_after="####", extraction="boxed")
    assert question == Question(id="7", question="2+2?", answer="4", context="Two pairs.", extraction="boxed", source="set")


def test_a_row_says_its_own_verifier_and_the_source_overrules_it(file):
    row = {"question": "?", "answer": "b", "choices": ["1", "2"], "verifier": "math", "extraction": "tag"}
    assert (only(file, row).verifier, only(file, row).extraction, only(file, row).answer) == ("math", "tag", "b")
    overruled = only(file, row, verifier="choice", extraction="boxed")
    assert (overruled.verifier, overruled.extraction, overruled.answer) == ("choice", "boxed", "B")


@pytest.mark.parametrize(
    ("choices", "answer", "letter", "texts"),
    [
        (["red", "green", "blue"], "B", "B", None),
        (["red", "green", "blue"], "(c)", "C", None),
        (["red", "green", "blue"], 0, "A", None),
        (["red", "green", "blue"], "2", "C", None),
        (["red", "green", "blue"], " Green ", "B", None),
        (["2", "1", "0"], "0", "C", None),  # as text it is a choice's text …
        (["2", "1", "0"], 0, "A", None),  # … and as a number an index
        ([3, 5, 7], 5, "B", ["3", "5", "7"]),
        ("['Mack', \"Ana's\"]", 1, "B", ["Mack", "Ana's"]),
        ("a ) 38 , b ) 27.5 , c ) rs . 1,000", "c", "C", ["38", "27.5", "rs . 1,000"]),
        (["A)21", "B)24"], "B", "B", ["21", "24"]),
        ({"label": ["1", "2"], "text": ["ice", "fire"]}, "2", "B", ["ice", "fire"]),
        ({"A": "ice", "B": "fire"}, "fire", "B", ["ice", "fire"]),
    ],
)
def test_the_right_choice_becomes_its_letter(file, choices, answer, letter, texts):
    question = only(file, {"question": "Which?", "answer": answer, "choices": choices})
    assert (question.verifier, question.answer, question.choices) == ("choice", letter, texts or choices)


def test_code_keeps_its_white_space_and_needs_no_answer(file):
    question = only(file, {"question": "def f():\n", "tests": ["assert f() == 1"]}, verifier="code")
    assert (question.question, question.tests, question.answer) == ("def f():\n", ["assert f() == 1"], "")


def test_public_sets_of_code_are_put_together(file):
    prompt = "def f(n):\n"
    row = {"question": prompt, "test": "def check(candidate): assert candidate(1) == 2", "entry_point": "f"}
    assert only(file, row, verifier="code").tests == {"tests": row["test"], "entry_point": "f", "prompt": prompt}
    row = {
        "question": "Double.",
        "test_list": ["assert f(1) == 2"],
        "test_setup_code": "a = 1",
        "test_imports": [],
        "challenge_test_list": [],
    }
    assert only(file, row, verifier="code").tests == {"tests": row["test_list"], "test_setup_code": "a = 1"}
    assert only(file, row | {"test_setup_code": ""}, verifier="code").tests == row["test_list"]
    pairs = [{"input": "1", "output": "2"}]
    assert only(file, {"question": "Double.", "tests": pairs, "entry_point": "f"}, verifier="code").tests == pairs


def test_what_is_dropped_is_counted(file):
    rows = [
        {"question": "", "answer": "1"},
        {"question": "a?", "answer": None},
        {"question": "b?", "answer": "  "},
        {"question": "c?", "answer": float("nan")},
        {"question": "d?", "answer": "4"},
        {"question": " d?\n", "answer": "5"},
        {"question": "d?", "answer": "6", "context": "another story"},
        {"question": "e?", "answer": "maybe", "choices": ["yes", "no"]},
        {"question": "f?", "answer": "A", "choices": "yes or no"},
        {"question": "g?", "answer": "A", "choices": ["the only one"]},
    ]
    loaded = load_questions([jsonl(write(file, *rows))])
    assert [question.answer for question in loaded.questions] == ["4", "6"]
    assert loaded.dropped == {
        "empty question": 1, "empty answer": 3, "repeated question": 1, "answer that is none of the choices": 1, "unreadable choices": 2,
    }  # fmt: skip
    marked = load_questions(
        [jsonl(write(file, {"question": "a?", "answer": "x #### 1"}, {"question": "b?", "answer": "2"}), answer_after="####")]
    )
    assert marked.dropped == {"no answer after ####": 1}


# Joining, shuffling, cutting -----------------------------------------------------------------------------------------------


def test_shuffle_then_skip_then_limit_of_what_is_usable(file):
    write(file, *({"question": f"q{i}", "answer": "" if i % 4 == 0 else i} for i in range(40)))

    def ids(**fields) -> list[str]:
        return [question.id for question in load_questions([jsonl(file, **fields)]).questions]

    everything = ids()
    assert everything == [f"set-{line}" for line in range(1, 41) if (line - 1) % 4]
    assert ids(limit=10) == everything[:10]
    assert ids(skip=10) == everything[10:]
    shuffled = ids(shuffle=3)
    assert sorted(shuffled) == sorted(everything) and shuffled != everything
    assert ids(shuffle=3, skip=10, limit=5) == shuffled[10:15]
    assert ids(shuffle=4) != shuffled == ids(shuffle=3)
    assert shuffled[:3] == ["set-36", "set-30", "set-14"]  # the same on every machine and Python
    with pytest.raises(InputError, match=r"set\.jsonl: skip 30 leaves nothing of its 30 usable questions"):
        ids(skip=30)


def test_joined_sources_have_unique_ids_and_no_question_twice(tmp_path):
    one = write(tmp_path / "one.jsonl", {"id": "1", "question": "a?", "answer": "1"}, {"id": "1", "question": "b?", "answer": "2"})
    two = write(tmp_path / "two.jsonl", {"id": "1", "question": "a?", "answer": "1"}, {"id": "1", "question": "c?", "answer": "3"})
    (tmp_path / "again").mkdir()
    again = write(tmp_path / "again" / "one.jsonl", {"id": "1", "question": "d?", "answer": "4"})
    loaded = load_questions([jsonl(one), jsonl(two), jsonl(again)])
    assert [(question.id, question.question) for question in loaded.questions] == [
        ("1", "a?"), ("one/1", "b?"), ("two/1", "c?"), ("one/1~2", "d?"),
    ]  # fmt: skip
    assert loaded.dropped == {"repeated question": 1}


# Mistakes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (["{"], {}, r"set\.jsonl:1: not JSON"),
        ([{"question": "a?", "answer": "1"}, "[1]"], {}, r"set\.jsonl:2: a JSON object is needed"),
        ([], {}, r"set\.jsonl has no usable question; it is empty"),
        ([{"question": "a?", "answer": ""}] * 2, {}, r"set\.jsonl has no usable question: left out 2 × empty answer"),
        (
            [{"question": "a?", "answers": "1"}],
            {},
            r"set\.jsonl:1: there is no column 'answer'; the row has question, answers; say which with `columns: \{answer: answers\}`",
        ),
        (
            [{"question": "a?", "answer": "1"}],
            {"columns": {"id": "uuid"}},
            r"no column 'uuid'; the row has question, answer; say which with `columns: \{id: …\}`",
        ),
        ([{"question": "a?", "answer": {"value": 1}}], {}, r"set\.jsonl:1: answer holds a dict"),
        ([{"question": "a?", "answer": "A"}], {"verifier": "choice"}, r"set\.jsonl:1: a multiple-choice question without choices"),
        ([{"question": "a?"}], {"verifier": "code"}, r"set\.jsonl:1: there is no column 'tests'"),
        ([{"question": "a?", "tests": []}], {"verifier": "code"}, "left out 1 × empty tests"),
        ([{"question": "a?", "tests": ["assert ("]}], {"verifier": "code"}, r"set\.jsonl:1: the tests are not Python"),
        ([{"question": "a?", "test": "def check(c): c()"}], {"verifier": "code"}, r"set\.jsonl:1: .* need an entry_point"),
        ([{"question": "a?", "answer": "1"}], {"verifier": "reasoning_gym"}, "needs the generator's `entry`"),
        ([{"question": "a?", "answer": "1", "verifier": "maths"}], {}, r"set\.jsonl:1: verifier is 'maths', not one of math, choice"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(file, rows, fields, message):
    with pytest.raises(InputError, match=message):
        load_questions([jsonl(write(file, *rows), **fields)])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not there; check the path"):
        load_questions([jsonl(tmp_path / "no.jsonl")])
    with pytest.raises(InputError, match="is a directory"):
        load_questions([jsonl(tmp_path)])
    (tmp_path / "blob.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a UTF-8 text file"):
        load_questions([jsonl(tmp_path / "blob.jsonl")])


# The hub -------------------------------------------------------------------------------------------------------------------

ROWS = [{"question": f"What is {i} + {i}?", "answer": str(2 * i), "n": i} for i in range(5)]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_local_directory_through_datasets(tmp_path, monkeypatch, form):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    directory = tmp_path / "sums"
    directory.mkdir()
    if form == "parquet":
        datasets.Dataset.from_list(ROWS).to_parquet(directory / "train.parquet")
    else:
        write(directory / "train.jsonl", *ROWS)
    loaded = load_questions([HubSource(kind="hub", name=str(directory), split="train[1:]", columns={"id": "n"}, skip=1, limit=2)])
    assert [(question.id, question.question, question.answer) for question in loaded.questions] == [
        ("2", "What is 2 + 2?", "4"), ("3", "What is 3 + 3?", "6"),
    ]  # fmt: skip
    named = load_questions([HubSource(kind="hub", name=str(directory), limit=1)]).questions[0]
    assert (named.id, named.source) == (f"{directory}/train-0", f"{directory}/train")
    with pytest.raises(InputError, match=r"sums/train, row 0: there is no column 'answr'; .*\{answer: answer\}"):
        load_questions([HubSource(kind="hub", name=str(directory), columns={"answer": "answr"})])
    with pytest.raises(InputError, match=r'Unknown split "tests".*\n.*name another subset or split'):
        load_questions([HubSource(kind="hub", name=str(directory), split="tests")])


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"data set openai/gsm8k/main/train can't be loaded: .*\n.*HF_TOKEN; .*local directory.*HF_HOME"):
        load_questions([HubSource(kind="hub", name="openai/gsm8k", subset="main")])
    with pytest.raises(InputError, match="is not there; check the path"):
        load_questions([HubSource(kind="hub", name=str(tmp_path / "nowhere"))])
    with pytest.raises(InputError, match="is a file; name its directory"):
        load_questions([HubSource(kind="hub", name=str(write(tmp_path / "a.jsonl", *ROWS)))])


# TFDS ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A directory of prepared builders with one tiny builder in it, written without TensorFlow."""
    import tensorflow_datasets as tfds

    class TinyQa(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "tiny_qa"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text = tfds.features.Text()
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"q": text, "options": tfds.features.Sequence(text), "right": np.int64})
            )

        def _split_generators(self, _):
            return {"train": ((i, {"q": f"Café {i}?", "options": ["oui", "non"], "right": i % 2}) for i in range(6))}

        def _generate_examples(self):
            raise NotImplementedError

    root = tmp_path_factory.mktemp("tfds")
    TinyQa(data_dir=root, file_format="array_record").download_and_prepare()
    return root


COLUMNS = {"question": "q", "choices": "options", "answer": "right"}


def test_a_prepared_builder_by_name_and_by_directory(prepared):
    by_name = load_questions([TfdsSource(kind="tfds", name="tiny_qa", data_dir=prepared, columns=COLUMNS)]).questions
    by_directory = load_questions([TfdsSource(kind="tfds", name=str(prepared / "tiny_qa" / "1.0.0"), columns=COLUMNS)]).questions
    assert [q.question for q in by_name] == [q.question for q in by_directory]
    assert sorted(q.question for q in by_name) == [f"Café {i}?" for i in range(6)]
    for question in by_name:
        assert question.choices == ["oui", "non"]
        assert question.answer == "AB"[int(question.question[5]) % 2]
    assert by_name[2].id == "tiny_qa/train-2"
    part = load_questions([TfdsSource(kind="tfds", name="tiny_qa", data_dir=prepared, split="train[2:4]", columns=COLUMNS)]).questions
    assert [q.question for q in part] == [q.question for q in by_name[2:4]]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("math_qaa", {}, r"math_qaa/train can't be loaded: .*\n.*nearest known builders: math_qa"),
        ("tiny_qa", {"split": "valid"}, "Unknown split 'valid'"),
        ("{root}/tiny_qa", {}, r"name a prepared directory itself, such as .*tiny_qa/1\.0\.0"),
    ],
)
def test_a_builder_that_cannot_be_read(prepared, name, fields, message):
    with pytest.raises(InputError, match=message):
        load_questions([TfdsSource(kind="tfds", name=name.format(root=prepared), data_dir=prepared, **fields)])


# reasoning-gym -------------------------------------------------------------------------------------------------------------


def gym(name: str, size: int = 5, **fields) -> GymSource:
    return GymSource(kind="reasoning_gym", name=name, size=size, **fields)


# One for each thing that JSON has no word for: nothing, tuples, pairs in lists, nested tuples, integer keys, no answer.
@pytest.mark.parametrize("name", ["chain_sum", "count_primes", "course_schedule", "knights_knaves", "graph_color", "rubiks_cube"])
def test_scorers_work_on_entries_that_have_been_json(tmp_path, name):
    import reasoning_gym

    made = reasoning_gym.create_dataset(name, seed=3_000_000, size=5)
    questions = load_questions([gym(name, seed=3)]).questions
    write_records(tmp_path / "q.jsonl", questions)
    score = reasoning_gym.get_score_answer_fn(name)
    for question, entry in zip(read_records(tmp_path / "q.jsonl", Question), made, strict=True):
        assert question.entry["metadata"]["source_dataset"] == name
        assert (question.verifier, question.extraction, question.question) == ("reasoning_gym", "statement", entry["question"].strip())
        oracle = entry["answer"]
        if name == "graph_color":  # its entry has a possible colouring instead of an answer
            oracle = json.dumps(entry["metadata"]["possible_answer"])
        if name == "rubiks_cube":
            oracle = entry["metadata"]["example_correct_answer"]
        assert score(oracle, question.entry) == 1.0
        assert score("nonsense", question.entry) == score("nonsense", entry) < 1.0


def test_the_same_seed_makes_the_same_questions():
    same, again, other = (load_questions([gym("chain_sum", seed=seed)]).questions for seed in (1, 1, 2))
    assert same == again
    assert {q.question for q in same}.isdisjoint(q.question for q in other)
    assert [q.id for q in same] == [f"chain_sum-seed1-{row}" for row in range(5)]
    joined = load_questions([gym("chain_sum", seed=1), gym("chain_sum", seed=2), gym("chain_sum", seed=1, limit=2)])
    assert len(joined.questions) == 10 and joined.dropped == {"repeated question": 2}


def test_a_generator_without_answers_needs_its_own_scorer():
    assert [question.answer for question in load_questions([gym("rubiks_cube", size=1)]).questions] == [""]
    with pytest.raises(InputError, match="left out 3 × empty answer"):
        load_questions([gym("rubiks_cube", size=3, verifier="math")])


def test_another_process_makes_the_same_questions():
    script = (
        "from jaxpolya.config import GymSource; from jaxpolya.data.questions import load_questions; "
        "print([load_questions([GymSource(kind='reasoning_gym', name=name, size=20)]).questions "
        "for name in ('chain_sum', 'family_relationships', 'group_anagrams', 'syllogism')])"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12"
    ]
    assert printed[0] == printed[1] and len(printed[0]) > 1000


def test_a_small_family_repeats_itself():
    loaded = load_questions([gym("chain_sum", size=100, params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})])
    assert len(loaded.questions) + loaded.dropped["repeated question"] == 100
    assert len({q.question for q in loaded.questions}) == len(loaded.questions)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (gym("chain_sums"), "no generator 'chain_sums'; nearest: chain_sum"),
        (gym("chain_sum", params={"min_term": 2}), "has no parameter min_term; it has .*min_terms"),
        (gym("chain_sum", params={"size": 2}), "has no parameter size"),
        (gym("chain_sum", params={"min_terms": 9, "max_terms": 2}), "can't work with params .*max_terms must be >= min_terms"),
        (gym("chain_sum", params={"min_terms": "two"}), "can't work with params"),
        (gym("chain_sum", verifier="choice"), "have no choices; leave `verifier` unset"),
        (gym("rubiks_cube", verifier="code"), "have no tests; leave `verifier` unset"),
        (gym("word_ladder"), "makes other questions in every process"),
        (gym("countdown", verifier="math"), "mathematics compares values"),
        (gym("propositional_logic"), "can't be judged: every premise in the question"),
        (gym("arc_agi", size=1), "arc_agi can't be used: its scorer needs Python objects"),
    ],
)
def test_a_wrong_generator(source, message):
    with pytest.raises(ConfigError, match=message):
        load_questions([source])


# Real sets -----------------------------------------------------------------------------------------------------------------

REAL = {
    "gsm8k_train": ({}, 7473, {}),
    "gsm8k_test": ({"columns": {"answer": "solution"}, "answer_after": "####"}, 1319, {}),
    "math_train": ({}, 7469, {"empty answer": 4, "repeated question": 1}),
    "math500": ({}, 500, {}),
    "aime_1983_2023_train": ({}, 975, {}),
    "aime24": ({}, 30, {}),
    "amc23": ({}, 40, {}),
    "minerva_math": ({}, 272, {}),
    "olympiadbench": ({}, 675, {}),
    "svamp": ({}, 1000, {}),
    "asdiv": ({}, 2214, {"repeated question": 1}),
    "mawps": ({}, 1978, {"repeated question": 87}),
    "humaneval": ({"verifier": "code", "columns": {"tests": "test"}}, 164, {}),
    "mbpp": ({"verifier": "code", "columns": {"tests": "test_list"}}, 974, {}),
    "musr_small": ({}, 30, {}),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the developers' question sets are not here")
@pytest.mark.parametrize("name", REAL)
def test_real_sets(name):
    fields, count, dropped = REAL[name]
    loaded = load_questions([jsonl(SHARED / f"{name}.jsonl", **fields)])
    assert (len(loaded.questions), loaded.dropped) == (count, dropped)
    assert len({q.id for q in loaded.questions}) == count
    if name == "musr_small":
        assert {q.verifier for q in loaded.questions} == {"choice"}
        assert {q.answer for q in loaded.questions} <= set("ABCDE")
        assert all(q.context for q in loaded.questions)
    if name == "gsm8k_test":
        given = [json.loads(line)["answer"] for line in (SHARED / f"{name}.jsonl").read_text().splitlines()]
        assert sum(q.answer.replace(",", "") == answer for q, answer in zip(loaded.questions, given, strict=True)) == count


def test_the_documented_sources_are_valid():
    page = (Path(__file__).parents[2] / "docs" / "questions.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    sources = [source for block in blocks for source in block.get("questions", [])]
    kinds = {source.kind for source in TypeAdapter(list[AnySource]).validate_json(json.dumps(sources), strict=True)}
    assert kinds == {"jsonl", "hub", "tfds", "reasoning_gym", "python"}


def test_the_documented_rows_load(file):
    page = (Path(__file__).parents[2] / "docs" / "questions.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    file.write_text(rows, encoding="utf-8")
    loaded = load_questions([jsonl(file)])
    assert [question.verifier for question in loaded.questions] == ["math", "choice", "code"]
    assert loaded.dropped == {}


def test_loading_questions_imports_no_jax(file):
    write(file, {"question": "?", "answer": "1"})
    check = (
        "import sys; from pathlib import Path; from jaxpolya.config import JsonlSource; "
        "from jaxpolya.data.questions import load_questions; "
        f"load_questions([JsonlSource(kind='jsonl', path=Path({str(file)!r}))]); "
        "print(*{'jax', 'datasets', 'tensorflow_datasets', 'reasoning_gym'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.strip() == ""
