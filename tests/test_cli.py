"""The command line as a user meets it: help, results, and every misuse in one sentence with the right exit code and nothing lost."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxpolya import cli
from jaxpolya.cli import process
from jaxpolya.errors import EXIT_CODES

CONFIGURATION, INPUT, RUN, MACHINE, CHECK, INTERRUPTED = 2, 3, 4, 5, 6, 130


@pytest.fixture
def config(tiny_run):
    """The path of a complete configuration, with its question files beside it."""
    return tiny_run.directory / "run.yaml"


# Help ------------------------------------------------------------------------------------------------------------------


def test_help_teaches(jaxpolya):
    code, out, _ = jaxpolya("--help")
    assert code == 0 and "jaxpolya run configs/quickstart.yaml" in " ".join(out.split())
    for number, meaning in EXIT_CODES.items():
        assert f"• {number}: {meaning}" in out
    for command in ("init", "run", "eval", "verify", "import", "export", "show", "config"):
        code, out, _ = jaxpolya(command, "--help")
        assert code == 0 and f"jaxpolya {command}" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rnu"], "no such command 'rnu'. Did you mean 'run'?"),
        (["run"], "missing argument 'CONFIG' (jaxpolya run --help says"),
        (["run", "x.yaml", "--onyl", "rl"], "--only"),
        (["eval", "x.yaml"], "missing option '--model'"),
        (["eval", "--model", "m"], "there is nothing to ask: name benchmarks (--benchmarks gsm8k,math500), or a CONFIG"),
        (["eval", "--model", "m", "--benchmarks", "gsm8k,maths500"], "there is no benchmark 'maths500'; did you mean math500?"),
        (["eval", "--model", "m", "--benchmarks", "gsm8k", "--registry", "own.yaml"], "own.yaml: No such file"),
        (["eval", "--model", "m", "--benchmarks", "gsm8k", "--samples", "0"], "--samples"),
        (["eval", "--model", "m", "--benchmarks", "gsm8k", "--top-p", "0"], "eval.sampling.top_p"),
        (["verify", "--in", "a", "--out", "b", "--workers", "0"], "--workers"),
        (["verify", "--in", "a", "--out", "b", "--kind", "maths"], "is none of math"),
        (["export", "a", "b", "--dtype", "bf16"], "choose bfloat16, float16 or float32"),
        (["export", "a", "b", "--arm", "rl"], "is not a run directory"),
        (["export", "a", "b", "--max-shard-size", "5gigs"], "--max-shard-size 5gigs: write it as a whole number of KB, MB or GB"),
        (["export", "a", "b", "--max-shard-size", "0GB"], "--max-shard-size 0GB"),
        (["import", "a"], "missing argument 'DIRECTORY'"),
        (["init"], "missing argument 'DIR'"),
        (["init", "x", "--model", "weights/none.gguf"], "--model weights/none.gguf: is not there"),
        (["init", "x", "--questions", "none.jsonl"], "--questions none.jsonl: is not a file"),
        (["config"], "name a CONFIG to resolve, or ask what fields there are with jaxpolya config --explain"),
        (["config", "x.yaml", "--markdown"], "--markdown goes with --explain"),
        (["config", "--explain", "rl.setps"], "no such key; did you mean rl.steps?"),
        (["config", "--explain", "--set", "a=1"], "leave --set away"),
    ],
)
def test_a_wrong_command_line(refused, arguments, says):
    refused(CONFIGURATION, says, *arguments)


def test_things_that_are_no_run_or_file(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "run.yaml").touch()
    refused(MACHINE, "can't be made or written", "init", tmp_path / "file")
    refused(INPUT, f"{tmp_path} is a directory; name a file of JSON lines", "verify", "--in", tmp_path, "--out", tmp_path / "out")
    refused(INPUT, "did you mean", "verify", "--in", tmp_path / "fiel", "--out", tmp_path / "out")
    refused(CONFIGURATION, f"is a directory; name a YAML file, such as {tmp_path / 'run.yaml'}", "run", tmp_path)
    for path in (tmp_path, tmp_path / "file", tmp_path / "none"):
        refused(INPUT, f"{path} is not a run directory", "show", path)


def test_the_version(jaxpolya):
    code, out, _ = jaxpolya("--version")
    assert code == 0 and re.fullmatch(r"jaxpolya \d+\.\d+\.\d+\n", out)
    assert jaxpolya("-h")[1] == jaxpolya("--help")[1]


def test_help_imports_nothing_heavy():
    code = """
import sys
import jaxpolya.cli.app, jaxpolya.verify.files, jaxpolya.runs.results, jaxpolya.runs.sweep
heavy = {"jax", "flax", "transformers", "torch", "matplotlib", "datasets", "tensorflow_datasets", "reasoning_gym", "pyarrow", "grain"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "[]"


def test_no_arguments_show_the_help(jaxpolya):
    code, out, err = jaxpolya()
    assert code == CONFIGURATION and "Commands" in out and not err


# Configurations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "did you mean"),
        ("a: [1\nb: 2", ":2:2 is not YAML"),
        ("", "a mapping of keys (name, model, arms, …) is needed; nothing is there"),
        ("name: 2024-99-99", "is not YAML: month must be in 1..12"),
        ("name: " + "[" * 3000, "is not YAML: maximum recursion depth"),
        ("- a", "a mapping of keys (name, model, arms, …) is needed; not a list"),
        (b"\xff\xfe\x00", "is not a UTF-8 text file"),
        ("name: x", "eval: is missing"),
    ],
)
def test_a_file_that_is_no_configuration(refused, tmp_path, text, says):
    path = tmp_path / "run.yaml"
    if text is None:
        path, text = tmp_path / "rum.yaml", "name: x"
        (tmp_path / "run.yaml").touch()
    else:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert str(path) in refused(CONFIGURATION, says, "run", path)


def test_a_directory_is_no_configuration(refused, tmp_path):
    refused(CONFIGURATION, f"{tmp_path} is a directory; name a YAML file", "config", tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("rl.setps=3", "rl.setps: no such key; did you mean steps?"),
        ("generate.questions.0.paht=x", "generate.questions.0.paht: no such key; did you mean path?"),
        ("rl.steps=many", "rl.steps: input should be a valid integer, not 'many'"),
        ("rl.steps=-1", "rl.steps: input should be greater than 0, not -1"),
        ("rl.algorithm=grop", "did you mean grpo?"),
        ("rl.questions.0.kind=jsnol", "rl.questions.0.kind: 'jsnol' is not one of"),
        ("rl.questions=[{path: x}]", "rl.questions.0.kind: is missing"),
        ("rl.prompts=3", "prompts (3) is not a multiple of updates (2)"),
        ("generate.seed=4294967296", "generate.seed: input should be less than 2147483648"),
        ("sft=null", "sft is missing, and the arms star, polya need it"),
        ("name=a/b", "name: 'a/b' can't be a name"),
        ("rl.steps", "write it as key.key=value"),
        ("rl.steps.x=1", "x lies below 3, which has no keys"),
        ("rl.questions.7.path=x", "7 is not an index of a list of 1"),
        ("arms=[base,base]", "name each arm once"),
        ("rl.questions.².limit=3", "² is not an index of a list of 1"),
        ("generate=&a [*a]", "a value contains itself"),
        ("generate=" + "[" * 3000, "is not a YAML value"),
        ("sft=2024-99-99", "is not a YAML value"),
        ("eval.questions={2024-01-01: []}", "a key is not a text"),
        (r'name="\ud800"', "a text holds a lone surrogate"),
        ('eval.sampling.stop=[""]', "eval.sampling.stop.0: string should have at least 1 character"),
        ("rl.questions=[]", "rl.questions: list should have at least 1 item"),
        ("generate.questions=[]", "generate.questions: list should have at least 1 item"),
        ("eval.questions={}", "eval.questions: dictionary should have at least 1 item"),
        ("eval.questions.sums=[]", "eval.questions.sums: list should have at least 1 item"),
    ],
)
def test_a_wrong_override(refused, config, change, says):
    refused(CONFIGURATION, says, "config", config, "--set", change)


def test_all_mistakes_are_named_at_once(refused, config):
    sentence = refused(CONFIGURATION, "can't be used", "config", config, "--set", "rl.setps=3", "--set", "sft.epochs=0")
    assert "rl.setps" in sentence and "sft.epochs" in sentence


def test_the_resolved_configuration_is_one(jaxpolya, config, tmp_path):
    code, out, _ = jaxpolya("config", config, "--set", "rl.steps=7")
    assert code == 0 and "steps: 7" in out and "duplicate_overlap: 0.9" in out
    (tmp_path / "resolved.yaml").write_text(out)
    assert jaxpolya("config", tmp_path / "resolved.yaml")[1] == out


def test_fields_are_explained(jaxpolya):
    code, out, _ = jaxpolya("config", "--explain", "rl.kl")
    assert code == 0 and "weight  number > 0; required" in out and "taken off its reward" in out
    code, out, _ = jaxpolya("config", "--explain")
    assert (
        code == 0 and "generate.sampling, sft.validation.sampling, rl.sampling" in out and "remat  none | block; default block (how)" in out
    )


def test_a_reader_that_stops_early_is_no_trouble(config):
    command = f"'{sys.executable}' -m jaxpolya config '{config}' | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Inputs: nothing is written before they are known to be sound ----------------------------------------------------------

LOOKS, NOWHERE = "questions: [{kind: jsonl, path: eval.jsonl}]", "questions: [{kind: python, source: nowhere.py:rows}]"
SHORT, LONG = "sampling: {max_new_tokens: 8}", "sampling: {max_new_tokens: 4000}"


@pytest.mark.parametrize(
    ("code", "says", "arguments"),
    [
        (CONFIGURATION, "did you mean polya+rl?", ["--arms", "polya+lr"]),
        (CONFIGURATION, "--arms: 'base]' is not an arm; did you mean base?", ["--arms", "base]"]),
        (CONFIGURATION, "--arms: '' is not an arm; there are base, rl", ["--arms", ""]),
        (CONFIGURATION, "did you mean select?", ["--only", "selct"]),
        (CONFIGURATION, "--only sft: the arms base, rl have no generate, select, sft phase", ["--only", "sft", "--arms", "base,rl"]),
        (CONFIGURATION, "--only rl: the arms star have no rl phase", ["--only", "rl", "--arms", "star"]),
        (CONFIGURATION, "raise generate.slots or lower select.n", ["--set", "select.n=4"]),
        (CONFIGURATION, "did you mean analogy?", ["--set", "generate.heuristics=[anlogy]"]),
        (INPUT, "is a local path, which has no revision v1", ["--set", "model.revision=v1"]),
        (CONFIGURATION, "does not fit 8 devices", ["--set", "mesh.fsdp=3"]),
        (CONFIGURATION, "is not a multiple of the mesh's 8 data shards", ["--set", "mesh.fsdp=-1"]),
        (CONFIGURATION, "there is no heuristic 'analgy'", ["--set", "generate.heuristics=[analgy, pattern]"]),
        (CONFIGURATION, "cannot read nowhere.yaml", ["--set", "generate.catalogue=nowhere.yaml"]),
        (CONFIGURATION, "generate.sampling.max_new_tokens (4000) leaves no room", ["--set", "generate.sampling.max_new_tokens=4000"]),
        (CONFIGURATION, "rl.validation.sampling.max_new_tokens (4000) leaves no room", ["--set", f"rl.validation={{{LOOKS}, {LONG}}}"]),
        (CONFIGURATION, "rl.validation.questions.0.source: ", ["--set", f"rl.validation={{{NOWHERE}, {SHORT}}}"]),
        (INPUT, "no checkpoint at weights/none.gguf", ["--set", "model.source=weights/none.gguf"]),
        (INPUT, "/weights/none.gguf, then /", ["--set", "model.source=weights/none.gguf"]),
        (CONFIGURATION, "looked for as a path: /", ["--set", "generate.catalogue=nowhere.yaml"]),
        (CONFIGURATION, "looked for as a path: /", ["--set", "rl.algorithm=nowhere.py:mine"]),
        (INPUT, "is not a file", ["--arms", "external", "--set", "select.external=traces.jsonl"]),
        (INPUT, "no checkpoint at ./scorer", ["--set", "select.adherence=reward_model", "--set", "select.reward_model=./scorer"]),
    ],
)
def test_what_can_be_known_at_once_is_said_at_once(refused, config, code, says, arguments):
    refused(code, says, "run", config, *arguments)
    assert not (config.parent / "runs").exists()


def test_every_point_of_a_sweep_is_checked_before_one_is_run(refused, config):
    sentence = refused(CONFIGURATION, "raise generate.slots or lower select.n", "sweep", config, "--vary", "select.n=1,40")
    assert sentence.startswith("jaxpolya: select.n=40: ")
    sentence = refused(INPUT, "gone.jsonl", "sweep", config, "--vary", "rl.questions.0.path=rl.jsonl,gone.jsonl")
    assert sentence.startswith("jaxpolya: rl.questions.0.path=gone.jsonl: ") and not (config.parent / "runs").exists()


def test_a_device_that_isnt_there_is_a_sentence():
    """Of the command and from Python."""
    command = f"'{sys.executable}' -m jaxpolya run configs/smoke.yaml; '{sys.executable}' -c 'import jaxpolya; jaxpolya.make_mesh()'"
    if list(Path("/dev").glob("nvidia*")):
        pytest.skip("there is a GPU here")
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.stderr.count("the device is not there: ") == 2, done.stderr
    assert done.stderr.startswith("jaxpolya: ") and "MachineError" in done.stderr


def test_things_that_are_no_checkpoint(refused, config, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 10)
    (tmp_path / "garbage.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 4)
    (tmp_path / "other.bin").write_bytes(b"something else")
    for name, says in (
        ("empty", "is not a checkpoint: it lacks config.json"),
        ("torn.gguf", "not a whole GGUF file"),
        ("garbage.gguf", "not a whole GGUF file"),
        ("other.bin", "not a GGUF one"),
        ("tron.gguf", "did you mean"),
    ):
        refused(INPUT, says, "run", config, "--set", f"model.source={tmp_path / name}")
        refused(INPUT, says, "export", tmp_path / name, tmp_path / "out")
        refused(INPUT, says, "import", tmp_path / name, tmp_path / "out")
        refused(INPUT, says, "eval", config, "--model", tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_broken_question_files(refused, config):
    train = config.parent / "train.jsonl"
    whole = train.read_bytes()
    for content, says in (
        (b"", "train.jsonl has no usable question; it is empty"),
        (whole + b"{broken\n", "train.jsonl:17: not JSON"),
        (whole + b"[1]\n", "train.jsonl:17: a JSON object is needed"),
        (whole + b'{"question": "x\\ud800", "answer": "1"}\n', "train.jsonl:17: a text holds a lone surrogate"),
        (whole + b"[" * 200_000, "train.jsonl:17: not JSON"),
        (b"\xff\xfe\x00\n", "not a UTF-8 text file"),
        (whole.replace(b'"answer"', b'"anser"'), "say which with `columns: {answer: anser}`"),
    ):
        train.write_bytes(content)
        refused(INPUT, says, "run", config)
    train.unlink()
    refused(INPUT, "train.jsonl", "run", config)
    refused(
        INPUT, f"looked for as a path: {config.parent / 'no.jsonl'}, then ", "run", config, "--set", "generate.questions.0.path=no.jsonl"
    )
    sources = "generate.questions=[{kind: reasoning_gym, name: %s, size: 3, params: {%s}}]"
    refused(CONFIGURATION, "nearest: chain_sum", "run", config, "--set", sources % ("chain_smu", ""))
    refused(CONFIGURATION, "has no parameter digits; it has", "run", config, "--set", sources % ("chain_sum", "digits: 1"))


@pytest.mark.parametrize(
    ("code", "says", "change"),
    [
        (INPUT, "generate: all 16 prompts are longer than 3 tokens", "generate.sampling.max_prompt_tokens=3"),
        (INPUT, "eval: all 10 prompts are longer than 3 tokens", "eval.sampling.max_prompt_tokens=3"),
        (INPUT, "rl: all 12 prompts are longer than 2 tokens", "rl.sampling.max_new_tokens=126"),
        (CONFIGURATION, "rl.prompts (40) is larger than the number of RL questions that fit (12)", "rl.prompts=40"),
        (CONFIGURATION, "rl.batching.row_tokens leaves 4 tokens", "rl.batching.row_tokens=20"),
        (RUN, "no training row fits sft.batching.row_tokens (10); raise it", "sft.batching.row_tokens=10"),
    ],
)
def test_sizes_that_leave_nothing(refused, config, code, says, change):
    refused(code, says, "run", config, "--arms", "star,star+rl", "--set", change)
    done = {path.parent.name.split("-")[0] for path in config.parent.glob("runs/tiny/stages/*/manifest.json")}
    assert done <= {"questions", "contamination"} | ({"generate", "select"} if code == RUN else set())


def test_slots_that_would_be_copies(refused, config):
    def refuse(slots: int, exemplars: int) -> None:
        changes = ("heuristics=all", "catalogue=null", f"slots={slots}", f"exemplars={exemplars}")
        options = [part for change in changes for part in ("--set", f"generate.{change}")]
        refused(CONFIGURATION, f"with {exemplars} exemplars each, make only 20 for these", "run", config, "--arms", "polya", *options)

    refuse(slots=21, exemplars=0)
    refuse(slots=10**12, exemplars=0)
    # Two of two exemplars can be drawn in one way only, and only the questions say that they are of that kind.
    (config.parent / "train.jsonl").write_text(json.dumps({"question": "Which?", "answer": "A", "choices": ["a", "b"]}) + "\n")
    refuse(slots=40, exemplars=2)


def test_longer_prompts_are_left_out_and_counted(jaxpolya, config):
    rows = [json.loads(line) for line in (config.parent / "eval.jsonl").read_text().splitlines()]
    rows[0]["question"] += " Take your time, and check the sum." * 20
    (config.parent / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = jaxpolya("run", config, "--arms", "base", "--set", "export=false")
    assert code == 0 and "36 responses" in err and "1 left out for their length" in err


def test_no_correct_response_at_all(refused, config):
    train = config.parent / "train.jsonl"
    train.write_text("".join(json.dumps(json.loads(line) | {"answer": "77"}) + "\n" for line in train.read_text().splitlines()))
    refused(RUN, "the star arm has nothing to learn from: it takes correct responses", "run", config, "--arms", "star")


def test_one_phase_needs_those_before_it(refused, jaxpolya, config):
    refused(RUN, "generate-plain comes before it and is not done yet", "run", config, "--arms", "star", "--only", "select")
    assert jaxpolya("run", config, "--arms", "star", "--only", "generate", "--quiet") == (0, "", "")


# A run's life ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(config):
    """Arguments of a run that takes a second."""
    return ["run", config, "--arms", "base,star"]


def test_a_run_and_what_can_be_done_with_it(jaxpolya, refused, small, config):
    run = config.parent / "runs" / "tiny"
    refused(INPUT, "is not a run directory", "show", run)
    refused(INPUT, "`jaxpolya run CONFIG` makes one", "show", config.parent)
    jaxpolya(*small, "--only", "generate")
    _, out, _ = jaxpolya("show", run)
    assert "done   generate-plain" in out and "sft-star" not in out and "warning" not in out
    (manifest,) = run.glob("stages/generate-plain-*/manifest.json")
    whole = json.loads(manifest.read_text())
    part = {"paid": 90, "numbers": 90, "not_number": 0.5}
    manifest.write_text(json.dumps(whole | {"stats": whole["stats"] | {"audit": {"all": part}}}))
    assert "warning: generate-plain: 50.0% of the 90 paid answers are no numbers" in jaxpolya("show", run)[1]
    manifest.write_text(json.dumps(whole | {"identity": whole["identity"] | {"verify": {"math": {"unevaluated": "accept"}}}}))
    assert "warning: generate-plain: answers that were not worked out were accepted" in jaxpolya("show", run)[1]
    manifest.write_text(json.dumps(whole))
    assert refused(INPUT, "this run isn't finished; finish it with `jaxpolya run`", "export", run, run / "out")
    code, out, err = jaxpolya(*small)
    assert code == 0 and "pass@1" in out and f"report: {run / 'report.md'}\n" in out and "sft-star: done in" in err
    assert re.search(r"^\[(\d+)/\1\] labels-", err, re.MULTILINE)  # the last of the stages that were counted
    assert jaxpolya(*small)[1] == out
    code, shown, _ = jaxpolya("show", run)
    assert code == 0 and out in shown and "done   eval-star-sums" in shown
    refused(INPUT, f"runs near it: {run}", "show", run.parent)
    refused(INPUT, "has no arm polya; it has base, star", "export", run, config.parent / "star", "--arm", "polya")
    assert jaxpolya("export", run, config.parent / "star", "--arm", "star", "--dtype", "float32")[0] == 0
    (config.parent / "mine").mkdir()
    (config.parent / "mine" / "notes.txt").touch()
    refused(INPUT, "jaxpolya didn't write it", "export", run, config.parent / "mine")
    assert jaxpolya("import", config.parent / "star", config.parent / "own")[0] == 0
    kept = {path: path.read_bytes() for path in (config.parent / "own").rglob("*") if path.is_file()}
    (config.parent / "link").symlink_to(config.parent / "own")
    for command in ("import", "export"):
        for target in ("own", "link", "star/../own", "."):
            refused(CONFIGURATION, "holds the model that is read", command, config.parent / "own", config.parent / target)
        refused(CONFIGURATION, f"lies in the stages of the run {run}", command, config.parent / "own", run / "stages" / "new")
    assert {path: path.read_bytes() for path in (config.parent / "own").rglob("*") if path.is_file()} == kept
    (config.parent / "elsewhere").mkdir()
    (config.parent / "own").rename(config.parent / "elsewhere" / "star")
    config.write_text(config.read_text().replace("model:\n", "model:\n  revision: v1\n"))  # of another model
    names = set()
    for model, name in ((run, "tiny"), (config.parent / "star", "star"), (config.parent / "elsewhere" / "star", "star")):
        code, out, _ = jaxpolya("eval", config, "--model", model, "--set", "eval.samples=2")
        match = re.search(rf"{config.parent}/runs/(tiny-eval-{name}-[0-9a-f]{{6}})/report\.md", out)
        assert code == 0 and match
        names.add(match[1])
    assert len(names) == 3  # a directory each


def test_a_bucket_is_not_a_directory(refused, jaxpolya, config, guesser, monkeypatch):
    from jaxpolya.hf import checkpoint

    refused(CONFIGURATION, "is the model that is read", "export", "gs://bucket/model", "gs://bucket/model/")
    asked = []
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda directory, *_, **__: asked.append(directory))
    monkeypatch.setattr(checkpoint, "export_checkpoint", lambda directory, *_, **__: asked.append(directory))
    for command in ("import", "export"):
        assert jaxpolya(command, guesser, "gs://bucket/model")[0] == 0
    assert asked == ["gs://bucket/model"] * 2


def test_a_bucket_without_its_client_is_said_plainly(refused, guesser, monkeypatch):
    from etils import epath

    def without_client(there):
        def ask(path):
            if str(path).startswith("gs://"):
                raise ImportError("Please install gcsfs to access Google Storage")
            return there(path)

        return ask

    kind = type(epath.Path("gs://bucket"))
    for name in ("exists", "is_dir"):
        monkeypatch.setattr(kind, name, without_client(getattr(kind, name)))
    for command in ("import", "export"):
        refused(INPUT, "gs://bucket/model: Please install gcsfs", command, "gs://bucket/model", "out")
        refused(INPUT, "gs://bucket/model: Please install gcsfs", command, guesser, "gs://bucket/model")


def test_a_revision_is_the_hub_s(refused, jaxpolya, guesser, tmp_path, monkeypatch):
    refused(INPUT, "is a local path, which has no revision v1", "import", guesser, tmp_path / "own", "--revision", "v1")
    from jaxpolya.hf import checkpoint, origin

    asked = []
    load = checkpoint.load_checkpoint
    monkeypatch.setattr(origin, "origin_of", lambda *_: {})
    monkeypatch.setattr(
        checkpoint, "load_checkpoint", lambda source, *, revision, **more: asked.append((source, revision)) or load(str(guesser), **more)
    )
    assert jaxpolya("import", "somebody/tiny", tmp_path / "own", "--revision", "v1")[0] == 0
    assert asked == [("somebody/tiny", "v1")]


def test_a_model_s_card_goes_home_with_it(jaxpolya, refused, small, config, guesser):
    run, home = config.parent / "runs" / "tiny", config.parent / "home"

    def card(*arguments) -> str:
        assert jaxpolya("export", *arguments, home)[0] == 0
        return (home / "README.md").read_text()

    assert jaxpolya(*small)[0] == 0
    best = (run / "export" / "README.md").read_text()
    assert "## Evaluation" in best and card(run) == best
    star, base = card(run, "--arm", "star"), card(run, "--arm", "base")
    assert best in (star, base) and "# tiny: star\n" in star and "# tiny: base\n" in base
    (model,) = run.glob("stages/sft-star-*/model")
    assert card(model) == star, "a stage's model is an arm's"
    plain = card(guesser)
    assert f"The checkpoint `{guesser}`" in plain and "fingerprint of its content: `sha256:" in plain
    results = json.loads((run / "results.json").read_text())
    results["models"].pop("star")
    (run / "results.json").write_text(json.dumps(results | {"best": "base"}))
    assert f"The checkpoint `{model}`" in card(model), "no arm ends with it"
    results["config"]["model"]["revision"] = "v1"
    (run / "results.json").write_text(json.dumps(results | {"best": "base"}))
    refused(INPUT, "has no revision v1", "export", run, home)  # the base model is that of the run's revision


def test_an_export_that_transformers_checks(jaxpolya, refused, guesser, tmp_path, monkeypatch):
    from jaxpolya.hf import check_export

    arguments = ["export", guesser, tmp_path / "home", "--verify"]
    with monkeypatch.context() as patch:
        patch.setattr(check_export, "TOLERANCE", 0.0)
        sentence = refused(CHECK, "verify: transformers gets other logits from what was written", *arguments)
        assert "nothing was written" in sentence and not list(tmp_path.iterdir())
    code, out, _ = jaxpolya(*arguments, "--dtype", "bfloat16", "--max-shard-size", "20KB")
    assert code == 0 and re.search(r"^verify: logits differ by \S+ at most \(tolerance \S+\) over 128 tokens, .* 128 of 128", out)
    assert len(list((tmp_path / "home").glob("model-*.safetensors"))) > 1
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        refused(MACHINE, "--verify needs torch", "export", tmp_path / "nowhere", tmp_path / "out", "--verify")


def test_adapters_are_exported_alone(jaxpolya, refused, tiny_checkpoint, tmp_path):
    from jaxpolya.hf.adapter import Adapter, save_adapter
    from jaxpolya.hf.checkpoint import inspect_checkpoint
    from jaxpolya.models.config import Lora

    meta = inspect_checkpoint(str(tiny_checkpoint))
    factors = {"v_lora_a": np.ones((2, 3, 32), np.float32), "v_lora_b": np.ones((2, 2, 8, 3), np.float32)}
    for name, base in (("one", tiny_checkpoint), ("two", tmp_path / "one")):
        save_adapter(tmp_path / name, Adapter(factors, Lora(3, 6.0, ("v",)), str(base)), meta)
    code, out, err = jaxpolya("export", tmp_path / "two", tmp_path / "home", "--adapter", "--base", "some/model")
    assert code == 0 and "adapters of some/model" in out, err
    settings = json.loads((tmp_path / "home" / "adapter_config.json").read_text())
    assert (settings["r"], settings["base_model_name_or_path"], settings["target_modules"]) == (6, "some/model", ["v_proj"])
    assert (tmp_path / "home" / "tokenizer.json").exists() and (tmp_path / "home" / "README.md").exists()
    refused(INPUT, "is a whole model, and no adapters of one", "export", tiny_checkpoint, tmp_path / "no", "--adapter")
    refused(CONFIGURATION, "--base names the base model of adapters", "export", tiny_checkpoint, tmp_path / "no", "--base", "x")
    refused(CONFIGURATION, "--dtype is of a whole model", "export", tmp_path / "two", tmp_path / "no", "--adapter", "--dtype", "float32")


def test_a_checkpoint_on_a_benchmark_and_against_another(jaxpolya, refused, config, guesser, tiny_checkpoint, tmp_path, monkeypatch):
    (tmp_path / "copies").mkdir()
    (config.parent / "eval.jsonl").rename(tmp_path / "copies" / "gsm8k.jsonl")  # our own records: the answers are bare
    monkeypatch.setenv("JAXPOLYA_BENCHMARKS", str(tmp_path / "copies"))
    machine = [f"--set={each}" for each in ("mesh.fsdp=1", "decode.rows=16", "verify.workers=1", "model.compute_dtype=float32")]
    arguments = [
        "eval",
        "--model",
        guesser,
        "--benchmarks",
        "gsm8k",
        "--samples",
        2,
        "--limit",
        5,
        "--greedy",
        "--output",
        tmp_path / "out",
    ]
    refused(INPUT, "is no directory", *arguments, "--benchmarks-dir", tmp_path / "none")
    refused(CONFIGURATION, "eval.sampling.max_new_tokens (1024) leaves no room", *arguments, *machine)
    arguments += ["--max-new-tokens", 12, "--against", tiny_checkpoint, *machine]
    code, out, err = jaxpolya(*arguments)
    assert code == 0, err
    assert "gsm8k: 5 questions × 2 samples" in out and "greedy" in out and " minus " in out
    runs = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(runs) == 2 and all(name.startswith("eval-") for name in runs)
    again = jaxpolya(*arguments)
    assert again[:2] == (0, out) and "done in" not in again[2]  # nothing was asked twice
    refused(INPUT, "no checkpoint at", *arguments, "--against", tmp_path / "none")


def test_a_run_is_one_process_s(refused, small, config):
    from jaxpolya.runs.stages import RunDirectory

    with RunDirectory(config.parent / "runs" / "tiny").lock():
        refused(MACHINE, f"is being worked on by another process (pid {os.getpid()})", *small)


def test_artefacts_that_were_touched_are_named(jaxpolya, refused, small, config):
    jaxpolya(*small)
    stages = config.parent / "runs" / "tiny" / "stages"
    (plain,) = stages.glob("generate-plain-*")
    samples, manifest = plain / "samples.jsonl", plain / "manifest.json"
    whole, entries = samples.read_bytes(), manifest.read_bytes()
    samples.write_bytes(whole[:-20])
    refused(INPUT, f"{samples} was changed since its stage was finished", *small)
    samples.unlink()
    refused(INPUT, f"{samples} has gone since its stage was finished", *small)
    samples.write_bytes(whole)
    manifest.write_text("{torn")
    for command in (small, ["show", stages.parent]):
        refused(INPUT, f"{manifest} is damaged; delete {plain} to do the stage again", *command)
    # A stage that was killed: its torn last line is mended, a broken one among the others is named.
    manifest.unlink()
    samples.write_bytes(whole[:-20])
    assert "broken off  generate-plain" in jaxpolya("show", stages.parent)[1]
    assert jaxpolya(*small)[0] == 0 and len(samples.read_bytes().splitlines()) == len(whole.splitlines())
    manifest.unlink()
    samples.write_bytes(b'{"id"\n' + whole)
    refused(INPUT, f"{samples}:1: not JSON", *small)
    samples.write_bytes(whole)
    manifest.write_bytes(entries)
    for damaged in ("{torn", '{"a": 1}', "[]", "[" * 200_000):
        (stages.parent / "results.json").write_text(damaged)
        refused(INPUT, "results.json is damaged", "show", stages.parent)
    assert jaxpolya(*small)[0] == 0 and jaxpolya("show", stages.parent)[0] == 0


def test_an_output_that_can_t_be(refused, small, config):
    refused(MACHINE, "a part of that path is a file; set `output` to a directory", *small, "--set", f"output={config}/runs")


@pytest.mark.parametrize("place", ["config", "samples", "checkpoint", "model", "manifest", "results"])
def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(refused, jaxpolya, small, config, monkeypatch, place):
    import orbax.checkpoint as ocp

    from jaxpolya import records, results
    from jaxpolya.runs import session, stages

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def wrapped(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device")  # as Orbax has it

    with monkeypatch.context() as patch:
        if place == "samples":
            append, left = records.Appender.append, iter(range(20))

            def filling(self, *rows):
                for row in rows:
                    append(self, row) if next(left, None) is not None else full()

            patch.setattr(records.Appender, "append", filling)
        elif place == "checkpoint":
            patch.setattr(ocp.CheckpointManager, "save", wrapped)
        elif place == "model":
            patch.setattr(ocp.StandardCheckpointer, "save", wrapped)
        elif place == "manifest":
            patch.setattr(stages, "write_whole", full)
        elif place == "results":
            patch.setattr(results, "write_whole", full)
        else:
            patch.setattr(session, "write_whole", full)
        sentence = refused(MACHINE, "", *small)
    assert "the disk is full" in sentence or "No space left on device" in sentence
    kept = {path: path.read_bytes() for path in config.parent.glob("runs/tiny/stages/*/*.jsonl") if path.name == "samples.jsonl"}
    assert all(len(data.splitlines()) == 20 for data in kept.values()) if place == "samples" else True
    assert jaxpolya(*small)[0] == 0
    assert all(set(data.splitlines()) <= set(path.read_bytes().splitlines()) for path, data in kept.items())


@pytest.fixture
def heard():
    """Signals do here what they do in a shell's foreground: under `nohup make test &` this process was started to ignore some."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_interruption_that_hits_a_finalizer_comes_again(heard):
    class Hit:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)  # the handler raises here, and Python drops it

    with process._interruptible() as came, pytest.raises(KeyboardInterrupt):
        Hit()
        time.sleep(30)
    assert len(came) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on(heard, refused, jaxpolya, small, config, monkeypatch, number):
    from jaxpolya import records

    append, left = records.Appender.append, iter(range(20))

    def interrupting(self, *rows):
        for row in rows:
            append(self, row)
            if next(left, None) is None:
                os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(records.Appender, "append", interrupting)
        refused(INTERRUPTED, "give the same command again to go on", *small)
    assert jaxpolya(*small)[0] == 0
    (attempts,) = config.parent.glob("runs/tiny/stages/generate-plain-*/attempts.jsonl")
    assert len(attempts.read_text().splitlines()) == 2


def test_a_run_in_the_background_ignores_ctrl_c_and_stops_on_sigterm(heard, refused, small, monkeypatch):
    from jaxpolya import records

    append, sent = records.Appender.append, iter([signal.SIGINT, signal.SIGINT, signal.SIGTERM])

    def interrupting(self, *rows):
        for row in rows:
            append(self, row)
            os.kill(os.getpid(), next(sent))

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `command &` in a script starts it
    monkeypatch.setattr(records.Appender, "append", interrupting)
    refused(INTERRUPTED, "give the same command again to go on", *small)
    assert next(sent, None) is None and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize("output", ["/proc/x", "/dev/null", "/dev/null/x", "a\0b", "n" * 300])
def test_an_output_that_can_not_be_is_named(refused, small, output):
    assert "set `output` to a directory" in refused(
        MACHINE, f"{output}/tiny can't be made", *small, "--set", f"output={json.dumps(output)}"
    )


def test_names_that_look_like_markup_are_shown_as_they_are(jaxpolya, refused, small, config, guesser, tmp_path):
    odd = tmp_path / "[v2] [/bold] :x:"
    code, out, err = jaxpolya(*small, "--set", f"output={json.dumps(str(odd))}")
    assert code == 0 and f"report: {odd}/tiny/report.md" in out and "done in" in err
    assert "[nope] :x:" in refused(CONFIGURATION, "", "run", "[nope] :x:.yaml")


def test_a_missing_package_is_named(refused, small, monkeypatch):
    import importlib.metadata

    from jaxpolya.runs.stages import provenance

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", missing)
        assert provenance({"fsdp": 1}, "cpu", "xla")["packages"] == {}
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    refused(MACHINE, "reasoning_gym", *small, "--set", "eval.questions.sums=[{kind: reasoning_gym, name: chain_sum, size: 2}]")


@pytest.mark.parametrize(
    "error", [OSError(errno.EFBIG, "File too large"), ValueError("Failed writing: [OS error 27: EFBIG File too large]")]
)
def test_a_file_above_the_limit(refused, small, guesser, tmp_path, monkeypatch, error):
    import orbax.checkpoint as ocp

    from jaxpolya.runs import session

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(ocp.StandardCheckpointer, "save", refuse)
    refused(MACHINE, "File too large; nothing was changed there", "import", guesser, tmp_path / "own")
    monkeypatch.setattr(session, "write_whole", refuse)
    refused(MACHINE, "a file would be larger than this system allows", "run", *small[1:])


def test_a_device_that_is_not_there(refused, small, monkeypatch):
    def missing(_):
        raise RuntimeError("Unable to initialize backend 'cuda': no device")

    monkeypatch.setattr("jaxpolya.runs.session.make_mesh", missing)
    refused(MACHINE, "the device is not there", *small)


def test_a_bug_shows_its_traceback(small, jaxpolya, monkeypatch):
    monkeypatch.setattr("jaxpolya.runs.session.make_mesh", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli_main_raw(monkeypatch, small)


def cli_main_raw(monkeypatch, arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["jaxpolya", *map(str, arguments)])
    cli.main()


# verify ----------------------------------------------------------------------------------------------------------------


def test_verify(jaxpolya, refused, tmp_path):
    answers, out = tmp_path / "answers.jsonl", tmp_path / "verdicts.jsonl"
    refused(INPUT, f"{answers}: No such file", "verify", "--in", answers, "--out", out)
    right = json.dumps({"id": 1, "response": "The answer is 3.", "answer": "3"}) + "\n"
    wrong = json.dumps({"id": 2, "response": "The answer is 4.", "answer": "3"}) + "\n"
    for content, says in (
        ("", "has no rows"),
        (right + "{torn", ":2: not JSON"),
        (right + '{"id": 3}\n', ":2: the field response is missing"),
    ):
        answers.write_text(content)
        refused(INPUT, says, "verify", "--in", answers, "--out", out, "--workers", 1)
    assert not out.exists()
    answers.write_text(right + wrong * 2)
    refused(MACHINE, "can't be written", "verify", "--in", answers, "--out", answers / "x", "--workers", 1)
    code, out_text, err = jaxpolya("verify", "--in", answers, "--out", out, "--workers", 1)
    assert code == 0 and "3 rows in" in out_text and "2 wrong, 1 correct" in out_text and str(out) in out_text and "verify: 3/3" in err
    verdicts = [json.loads(line)["verdict"] for line in Path(out).read_text().splitlines()]
    assert verdicts == ["correct", "wrong", "wrong"]
