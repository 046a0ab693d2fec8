"""README.md of a model that someone takes home, in the form that the Hugging Face hub reads: YAML front matter, then Markdown.

A run's card is its results.json seen from one arm: the tables and sentences of the report, over results that hold nothing but that
arm and the base model. So no number is computed a second time, and card and report can't disagree. What nobody said (a licence, a
name on the hub) is left out, never guessed.

There is no `model-index` in the front matter: it has no place for an interval or for how many questions a number rests on, and a
leaderboard would rank a dozen questions beside whole benchmarks. The tables say both.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from jaxpolya.arms import ARMS, BASE
from jaxpolya.config import REWARDS
from jaxpolya.config.file import dump_tree
from jaxpolya.files import package_version
from jaxpolya.keys import Key
from jaxpolya.report import tables
from jaxpolya.report.page import audit, contamination, fenced, findings, section, titled
from jaxpolya.results import Comparison, Difference, Results

TITLE = "Mid-Training with Self-Generated Data Improves Reinforcement Learning in Language Models"

CITATION = """@misc{midtraining-with-self-generated-data,
  title = {%s},
  year = {2026},
  eprint = {2605.08472},
  archivePrefix = {arXiv}
}

@software{jaxpolya,
  title = {jaxpolya: Pólya mid-training and reinforcement learning in JAX and Flax},
  version = {%s}
}"""

LOADING = """from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")"""

FINE_TUNED = {
    "star": "fine-tuned on one correct solution to each question that it wrote itself (STaR)",
    "polya": "fine-tuned on several correct solutions to each question that it wrote itself, each along another of Pólya's heuristics",
    "wrong": "fine-tuned on several wrong solutions to each question that it wrote itself, each along another of Pólya's heuristics",
    "external": "fine-tuned on solutions that were given to it",
}
"""By kind of fine-tuning data, which is the first part of an arm's name."""

UNKNOWN = "of an unknown version"


def run_card(results: Results, arm: str) -> str:
    """The card of one arm of a finished run.

    Args:
      results: of the run.
      arm: one of its arms.
    """
    config, facts = results.config, results.run
    learned = _learned_from(config, arm)
    seen = _seen_from(results, arm, learned)
    datasets = [source["name"] for sources in learned.values() for source in sources if _is_on_the_hub(source)]
    done = {_kind(arm): FINE_TUNED[_kind(arm)]} if "train" in learned else {}
    done |= {config["rl"]["algorithm"].rpartition(":")[2]: _reinforced(config["rl"])} if "rl" in learned else {}
    sections = [
        _front_matter(facts.origin, list(done), datasets),
        f"# {facts.name}: {arm}\n",
        f"The arm `{arm}` of the run `{facts.name}` of jaxpolya: `{facts.model}`, "
        f"{', then '.join(done.values()) or 'without training'}. The method is that of *{TITLE}* "
        "([arXiv 2605.08472](https://arxiv.org/abs/2605.08472)).\n",
        _loading(),
        _base_model(facts.model or UNKNOWN, facts.fingerprint or UNKNOWN, facts.origin),
        _data(seen, config, learned),
        section("Training", titled(tables.training_table(seen))) if learned else "",
        _evaluation(seen, config, arm),
        audit(seen),
        contamination(seen),
        _limits(results, seen, arm),
        _how(results),
        section("Citation", fenced(CITATION % (TITLE, facts.packages.get("jaxpolya", UNKNOWN)), "bibtex")),
    ]
    return "\n".join(part for part in sections if part)


def checkpoint_card(source: str, fingerprint: str, origin: Mapping[str, Any], commit: str | None) -> str:
    """The card of a checkpoint that is no arm of a finished run: what it was, who wrote it down anew, how to load it.

    Args:
      source: the checkpoint, as the user named it.
      fingerprint: of its content.
      origin: as `hf.origin.origin_of` gives it.
      commit: jaxpolya's, where it is known.
    """
    writer = f"jaxpolya {package_version('jaxpolya') or UNKNOWN}" + (f" (commit {commit})" if commit else "")
    sections = [
        _front_matter(origin, [], []),
        f"# {PurePath(source).name}\n",
        f"The checkpoint `{source}` as a Hugging Face directory, written by {writer}. Weights, tokenizer, chat template and "
        "generation settings are that checkpoint's; nothing was trained or measured on the way.\n",
        _loading(),
        _base_model(source, fingerprint, origin),
    ]
    return "\n".join(sections)


def _front_matter(origin: Mapping[str, Any], tags: list[str], datasets: list[str]) -> str:
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["jaxpolya", *tags],
        datasets=list(dict.fromkeys(datasets)) or None,
        **origin,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _loading() -> str:
    return section(
        "How to load it", fenced(LOADING, "python"), 'From another place, put this directory, or its name on the hub, for `"."`.\n'
    )


def _base_model(model: str, fingerprint: str, origin: Mapping[str, Any]) -> str:
    lines = [f"checkpoint: `{model}`", f"fingerprint of its content: `{fingerprint}`"]
    if (named := origin.get("base_model")) and named != model:
        lines.append(f"nearest ancestor on the hub: {', '.join([named] if isinstance(named, str) else named)}")
    if "license" in origin:
        lines.append(f"licence, as it says itself: {origin.get('license_name', origin['license'])}")
    return section("Base model", _bullets(lines))


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


# A run, seen from one arm ----------------------------------------------------------------------------------------------


def _kind(arm: str) -> str:
    return ARMS[arm].recipe.name


def _reinforced(rl: Mapping[str, Any]) -> str:
    """What reinforcement learning did to it."""
    reward = rl.get("reward", "verdict")
    paid = "a verifier's verdicts as rewards" if reward in REWARDS else f"rewards that `{PurePath(reward).name}` gave"
    return f"trained by reinforcement learning {'on recorded rollouts' if rl.get('replay') else f'with {paid}'}"


def _learned_from(config: Mapping[str, Any], arm: str) -> dict[str, list[dict[str, Any]]]:
    """The sources of the questions that an arm learned from: `train` (mid-training), `rl`."""
    sources = {}
    if _kind(arm) in FINE_TUNED:
        sources["train"] = config["generate"]["questions"]
    if arm.endswith("rl"):
        sources["rl"] = config["rl"]["questions"]
    return sources


def _seen_from(results: Results, arm: str, learned: Mapping[str, Any]) -> Results:
    """The results with that arm and the base model alone, and with the data that the arm learned from."""
    # STaR's responses are asked for without a heuristic; external ones aren't asked for.
    recipe = ARMS[arm].recipe
    asked = {"plain": lambda key: key == "plain", "polya": lambda key: key != "plain"}.get(str(recipe.responses))
    keys = [Key("generate", recipe.responses)] if recipe.responses else [Key("traces")] if recipe.traces else []
    keys += [Key("rl", ARMS[arm].slug)] if ARMS[arm].rl else []
    keys += [Key("eval", ARMS[name].slug, asked) for name in (BASE.name, arm) for asked in results.config["eval"]["questions"]]
    stages = {key.name for key in keys}
    return results.model_copy(
        update={
            "audit": {name: part for name, part in results.audit.items() if name in stages},
            "arms": {name: results.arms[name] for name in dict.fromkeys((BASE.name, arm)) if name in results.arms},
            "selection": {kind: part for kind, part in results.selection.items() if kind == _kind(arm)},
            "contamination": {use: part for use, part in results.contamination.items() if use in learned},
            "generation": {key: part for key, part in results.generation.items() if asked and asked(key)},
            "left_out": {},
            "stages": [],
        }
    )


def _is_on_the_hub(source: Mapping[str, Any]) -> bool:
    return source["kind"] == "hub" and not _is_place(source["name"]) and not Path(source["name"]).exists()


def _is_place(text: str) -> bool:
    """Whether a text says where something lies on a machine."""
    return text.startswith(("/", "~", "./", "../"))


def _data(seen: Results, config: Mapping[str, Any], learned: Mapping[str, Any]) -> str:
    """Which questions the arm learned from, and which of its own solutions."""
    if not learned:
        return ""
    lines = []
    for use, sources in learned.items():
        facts = seen.contamination[use]
        left_out = f", of which {facts.shared:,} were left out (evaluated on)" if facts.dropped and facts.shared else ""
        name = {"train": "mid-training", "rl": "reinforcement learning"}[use]
        lines.append(f"{name}: {facts.questions:,} questions{left_out}, from {_named(sources)}")
    if "rl" in learned:
        rl = config["rl"]
        lines.append(
            f"in each step of reinforcement learning (`{PurePath(rl['algorithm']).name}`): {rl['prompts']} questions × {rl['group']} "
            f"responses of at most {rl['sampling']['max_new_tokens']:,} tokens"
        )
    return section("Data", _bullets(lines), *map(titled, (tables.selection_table(seen), tables.heuristics_table(seen))))


def _named(sources: Iterable[Mapping[str, Any]]) -> str:
    """Question sources by name, with whatever of their settings was set."""
    names = []
    for source in sources:
        name = _without_place(source.get("name") or PurePath(source.get("path") or source["source"]).name)
        rest = {key: _without_place(value) for key, value in source.items() if key not in ("kind", "name", "path", "source")}
        names.append(f"`{name}` ({', '.join([source['kind'], *_settings(rest)])})")
    return "; ".join(names)


def _without_place(value: Any) -> Any:
    """Of a path its last part: where files lay on somebody's machine is nobody's business."""
    if isinstance(value, dict):
        return {key: _without_place(inside) for key, inside in value.items()}
    return PurePath(value).name if isinstance(value, str) and _is_place(value) else value


def _settings(fields: Mapping[str, Any]) -> list[str]:
    """`key value` of those fields that say anything, mappings in one line."""

    def text(value: Any) -> str:
        return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip() if isinstance(value, dict | list) else str(value)

    return [f"{key} {text(value)}" for key, value in fields.items() if value not in (None, {}, [])]


def _evaluation(seen: Results, config: Mapping[str, Any], arm: str) -> str:
    """The arm beside the base model, and their paired difference."""
    evaluated = seen.arms[arm].eval
    asked = [f"`{name}`: {_named(sources)}" for name, sources in config["eval"]["questions"].items()]
    paired = {
        name: Difference(questions=evaluation.questions, difference=evaluation.versus_base)
        for name, evaluation in evaluated.items()
        if evaluation.versus_base is not None
    }
    difference = [tables.comparison_table(Comparison(model=arm, against=BASE.name, sets=paired))] if paired else []
    return section(
        "Evaluation",
        _bullets(asked),
        f"Sampled with {', '.join(_settings(config['eval']['sampling']))}, in {config['model']['compute_dtype']}. In bold: the higher "
        "mean, and a difference whose interval leaves out 0.\n",
        *map(titled, [*tables.eval_tables(seen), *difference]),
    )


def _limits(results: Results, seen: Results, arm: str) -> str:
    """What the numbers show and don't show, and what has no number at all."""
    lines = [
        f"- Evaluated on {', '.join(results.config['eval']['questions'])} alone. Nothing is known of other tasks, other languages, "
        "conversations, or safety; whatever the base model's own page warns of holds here too.\n"
    ]
    if arm == results.best and len(results.arms) > 1:
        lines.append(
            f"- It was chosen of {len(results.arms)} arms for its mean pass@1 on the questions reported here, which flatters it.\n"
        )
    return section("Limits", findings(seen) + "".join(lines))


def _how(results: Results) -> str:
    """Code and versions, seeds, and the whole configuration."""
    facts = results.run
    packages = ", ".join(f"{name} {facts.packages.get(name, UNKNOWN)}" for name in ("jaxpolya", "jax", "flax", "transformers"))
    resolved = dump_tree(results.config)
    return section(
        "How it was made",
        f"With {packages} on {facts.device or 'an unknown device'}, from commit {facts.commit or 'unknown (an installed package)'}. The "
        f"arms of the run: {', '.join(results.arms)}; its report.md compares them all.\n",
        _details("Versions, seeds and command", titled(tables.provenance_table(results), title=False)),
        _details("The whole configuration", fenced(resolved, "yaml")),
    )


def _details(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n</details>\n"
