"""Every field of a configuration has a meaning, and the page that lists them says what the models say."""

from pathlib import Path

import pytest

from jaxpolya.config import explain as config_explain
from jaxpolya.errors import ConfigError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"


def keys(key: str) -> list[str]:
    return [f"{section.places[0]}.{field.name}".removeprefix(".") for section in config_explain.explain(key) for field in section.fields]


def test_the_page_is_what_the_models_say():
    page = config_explain.to_markdown(config_explain.explain())
    assert PAGE.read_text(encoding="utf-8") == page, (
        f"docs/configuration.md is not what the fields say; run: {config_explain.REGENERATE_HERE}"
    )


def test_every_field_has_a_meaning():
    sections = config_explain.sections()
    assert len({section.title for section in sections}) == len(sections) > 15
    for section in sections:
        assert section.meaning.endswith("."), section.model
        for field in section.fields:
            assert len(field.meaning) > 10 and field.meaning.endswith((".", ").")), f"{section.title}.{field.name}: {field.meaning!r}"


def test_types_defaults_and_marks():
    by_name = {(section.title, field.name): field for section in config_explain.sections() for field in section.fields}
    assert (by_name["rl", "group"].takes, by_name["rl", "group"].default) == ("integer ≥ 2", "16")
    assert (by_name["rl", "icepop"].takes, by_name["rl", "icepop"].default) == ("[number ≥ 0, number > 0] or null", "unset")
    assert (by_name["generate", "heuristics"].takes, by_name["generate", "heuristics"].default) == ("list of text or all", "all")
    assert by_name["batching", "micro_rows"].mark == "how" and by_name["model", "source"].mark == "content"
    assert by_name["eval", "questions"].takes == "mapping of names to list of question source"
    assert by_name["mesh", "fsdp"].default == "-1" and by_name["the run", "mesh"].default == config_explain.SECTION


def test_a_part_is_explained_at_its_own_place():
    assert keys("rl.kl") == ["rl.kl", "rl.kl.weight", "rl.kl.estimator", "rl.kl.place"]
    assert keys("eval.sampling.top_p") == ["eval.sampling.top_p"]
    assert "rl.questions.path" in keys("rl.questions") and "rl.questions.0.path" not in keys("rl.questions")
    assert keys("rl.questions.0.path") == ["rl.questions.path"]
    with pytest.raises(ConfigError, match=r"config --explain rl\.optimiser: no such key; did you mean rl\.optimizer\?"):
        config_explain.explain("rl.optimiser")
