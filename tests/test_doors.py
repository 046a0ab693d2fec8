"""What users bring, by name or as it is: found, known by its file, and refused in a sentence."""

import subprocess
import sys

import pytest

from jaxpolya import doors
from jaxpolya.config.file import load_config, parse_config
from jaxpolya.errors import ConfigError
from jaxpolya.runs.checks import check_sources
from jaxpolya.train.algorithms import PRESETS


def top_level():
    """A function that other processes find."""


class TopLevel:
    def method(self):
        """Not at the top level, but found."""


VALUE = PRESETS["grpo"]


def test_an_object_is_spelled_as_the_reference_that_leads_to_it(tmp_path):
    for thing in (top_level, TopLevel, TopLevel.method):
        assert doors.bring(doors.spelled(thing), "rl.reward").value is thing
    assert doors.bring(doors.spelled(VALUE), "rl.algorithm").value is VALUE
    path = tmp_path / "own.py"
    path.write_text("def mine(): pass\n")
    plugin = doors.bring(f"{path}:mine", "k")
    assert doors.spelled(plugin.value) == plugin.reference == f"{path}:mine" and plugin.name == "own.py:mine"
    assert doors.spelled("grpo") == "grpo" and doors.spelled(None) is None


def test_what_other_processes_cant_find_is_a_sentence():
    def local():
        pass

    for thing in (local, lambda: 0, object()):
        with pytest.raises(doors.Unfound, match="can't be found by other processes"):
            doors.spelled(thing)
    with pytest.raises(ConfigError, match=r"^config: the function .*lambda.* can't be found by other processes"):
        parse_config({"name": "x", "rl": {"algorithm": lambda: 0}})


def test_a_relative_path_is_another_processs_absolute_one(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("mine = 3\n")
    monkeypatch.chdir(tmp_path)
    plugin = doors.bring("own.py:mine", "k")
    assert (plugin.value, plugin.reference) == (3, f"{tmp_path}/own.py:mine") and plugin.identity == ["mine", plugin.digest]
    (tmp_path / "own.py").write_text("mine = 4\n")
    again = doors.bring("own.py:mine", "k")
    assert again.value == 4 and again.digest != plugin.digest
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigError, match=r"^k: .*own\.py is not a file"):
        doors.bring("own.py:mine", "k")


@pytest.mark.parametrize("text", ["import sys; sys.exit(3)", "1/0", "def ("])
def test_a_file_that_fails_is_a_sentence(tmp_path, text):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=r"^k: .*own\.py can't be imported: (SystemExit|ZeroDivisionError|SyntaxError)"):
        doors.bring(f"{tmp_path}/own.py:mine", "k")


@pytest.mark.parametrize("error", ["MemoryError()", "ImportError('libbig.so: failed to map segment from shared object')"])
def test_what_has_too_little_memory_says_which_setting_gives_more(tmp_path, monkeypatch, error):
    (tmp_path / "hungry.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    for reference in (f"{tmp_path}/hungry.py:mine", "hungry:mine"):
        with pytest.raises(ConfigError, match=r"can't be imported: .*; where the verifier says so, raise verify\.memory_mb"):
            doors.bring(reference, "k")


def test_the_script_that_is_running_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from jaxpolya import doors\n"
        "print('ran')\n"
        "def mine(): pass\n"
        "assert doors.bring(doors.spelled(mine), 'k').value is mine and doors.spelled(mine) == __file__ + ':mine'\n"
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ran.stdout == "ran\n", ran.stderr


def test_a_path_beside_the_configuration_is_found(tmp_path, monkeypatch):
    """A verifier, a source and a reward that lie beside the YAML file, as the run finds them from anywhere."""
    (tmp_path / "own.py").write_text("def reward(response): return 1\ndef rows(): return []\ndef judge(question, answer): return True\n")
    batching, optimizer = "batching: {row_tokens: 64}", "optimizer: {learning_rate: 0.1}"
    questions = "questions: [{kind: python, source: own.py:rows, verifier: own.py:judge}]"
    (tmp_path / "run.yaml").write_text(
        "name: x\nmodel: {source: m}\narms: [rl]\n"
        f"rl: {{{questions}, sampling: {{max_new_tokens: 8}}, {optimizer}, {batching}, steps: 1, prompts: 1, reward: own.py:reward}}\n"
        f"eval: {{questions: {{q: [{{kind: jsonl, path: q.jsonl}}]}}, sampling: {{max_new_tokens: 8}}}}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config("../run.yaml")
    assert config.rl is not None
    ((key, source), *_) = config.sources
    assert (key, source.source, source.verifier) == ("rl.questions.0", "../own.py:rows", "../own.py:judge")
    assert doors.bring(config.rl.reward, "rl.reward").name == "own.py:reward"
    check_sources(config)
    (tmp_path / "own.py").write_text("def rows(): return []\n")
    with pytest.raises(ConfigError, match=r"^rl\.questions\.0\.verifier: \.\./own\.py has no judge; it has rows"):
        check_sources(config)
