"""What can be known to fail before a weight is loaded. Every check raises `ConfigError` or `InputError` that names the setting."""

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator

from jax.sharding import Mesh

from jaxpolya.config import PythonSource, RunConfig
from jaxpolya.config.paths import path_of, places, tried
from jaxpolya.data.python_source import open_own
from jaxpolya.doors import is_reference
from jaxpolya.errors import ConfigError, InputError
from jaxpolya.evaluation.diversity import make_kernel
from jaxpolya.evaluation.judges import own_judge
from jaxpolya.hf.checkpoint import CheckpointMeta
from jaxpolya.polya.catalogue import Catalogue, Slot, most_slots, slots
from jaxpolya.polya.keep import make_keep
from jaxpolya.polya.prompts import KINDS, PromptBuilder
from jaxpolya.rollout.recordings import open_recording
from jaxpolya.rollout.replay import Model, check_recording
from jaxpolya.rollout.rewards import make_pay
from jaxpolya.runs.plan import PHASES, absent_phases
from jaxpolya.score.adherence import own_adherence
from jaxpolya.score.heuristic_judge import check_room
from jaxpolya.score.reward_model import inspect_reward_model
from jaxpolya.train.algorithms import make_algorithm, most_refills
from jaxpolya.train.sft import check_rows as check_micro_rows
from jaxpolya.train.sinks import make_sinks
from jaxpolya.verify.kinds import bring


def check_phase(config: RunConfig, only: str | None) -> None:
    """Whether there is such a phase, and work for it."""
    if only is not None and only not in PHASES:
        close = difflib.get_close_matches(only, PHASES, n=1)
        raise ConfigError(f"--only {only}: the phases are {', '.join(PHASES)}{f'; did you mean {close[0]}?' if close else ''}")
    if only in (absent := absent_phases(config)):
        raise ConfigError(f"--only {only}: the arms {', '.join(config.arms)} have no {', '.join(absent)} phase")


def check_rows(config: RunConfig, mesh: Mesh) -> None:
    """Whether micro-batches can be divided over the mesh."""
    for key, stage, used in (("sft", config.sft, config.recipes), ("rl", config.rl, config.reinforced)):
        if stage is not None and used:
            check_micro_rows(stage.batching.micro_rows, mesh, f"{key}.batching.micro_rows")


@contextlib.contextmanager
def saying_where(config: RunConfig) -> Iterator[None]:
    """Adds to an error where the paths that it names, and that aren't there, were looked for."""
    try:
        yield
    except (ConfigError, InputError) as error:
        named = dict.fromkeys(text for text in places(config) if path_of(text) in str(error))
        raise type(error)("\n  ".join([str(error), *filter(None, (tried(text, config.starts) for text in named))])) from error.__cause__


def check_files(config: RunConfig) -> None:
    """Whether the inputs of later stages are there."""
    select = config.select
    if any(recipe.traces for recipe in config.recipes) and select.external and not select.external.is_file():
        raise InputError(f"select.external: {select.external} is not a file; name JSON lines of {{question_id or question, response}}")
    if config.recipes and select.adherence == "reward_model" and select.reward_model:
        inspect_reward_model(select.reward_model)
    if config.recipes:
        own_adherence(select.adherence)
        make_keep(select)
    if config.reinforced and config.rl:
        make_algorithm(config.rl)
        make_pay(config.rl)
    make_sinks(config.log)


def check_sources(config: RunConfig) -> None:
    """Whether the kinds of question and the sources that a user brings are there; makes the kinds known."""
    for key, source in config.sources:
        if source.verifier:
            bring(source.verifier, f"{key}.verifier")
        if isinstance(source, PythonSource):
            open_own(source, f"{key}.source")


def check_lengths(config: RunConfig, positions: int) -> None:
    """Whether every response leaves room for its prompt among the model's positions."""
    validations = ((f"{stage}.validation", validation) for stage, validation in config.validated.items())
    for key, stage in (("generate", config.generate), ("rl", config.rl), ("eval", config.eval), *validations):
        if stage is not None and stage.sampling.max_new_tokens >= positions:
            raise ConfigError(
                f"{key}.sampling.max_new_tokens ({stage.sampling.max_new_tokens}) leaves no room for a prompt: "
                f"the model has {positions} positions; lower it"
            )


def check_answers(config: RunConfig, meta: CheckpointMeta, builder: PromptBuilder) -> None:
    """Whether a response can be taught."""
    if not config.recipes:
        return
    if not meta.stop_ids:
        raise InputError(f"{meta.source}: names no end-of-text token, so responses can't be taught to end; add eos_token_id to its config")
    builder.check_answers()


def check_replay(config: RunConfig, model: Model) -> None:
    """Whether recorded rollouts are there for every arm, and are this model's."""
    if config.rl is None or config.rl.replay is None:
        return
    refills = most_refills(config.rl, make_algorithm(config.rl)[0])
    for arm in config.reinforced:
        check_recording(config.rl, open_recording(config.rl, arm.slug), model, refills)


def check_judge(config: RunConfig, catalogue: Catalogue, builder: PromptBuilder, positions: int) -> None:
    """Whether a judge of composition is one, and a model as judge has room for what it is asked; and whether a kernel is one."""
    make_kernel(config.eval.kernel)
    if is_reference(config.eval.composition):
        own_judge(config.eval.composition, catalogue.heuristics)
    if config.eval.composition == "model":
        check_room(builder, catalogue.heuristics, positions)


def make_slots(config: RunConfig, catalogue: Catalogue) -> dict[str, list[Slot]]:
    """Slots for each kind of question; none where nothing is generated."""
    generate = config.generate
    if generate is None:
        return {}
    heuristics = catalogue.pick(generate.heuristics)
    check_slots(config, catalogue, KINDS.values(), max)  # what no kind of question has is known before there are questions
    made: dict[str, list[Slot]] = {
        kind: slots(heuristics, generate.slots, generate.exemplars, generate.seed, kind)  # type: ignore[arg-type]
        for kind in sorted(set(KINDS.values()))
    }
    count = len(made["math"])
    if any(recipe.name == "polya" for recipe in config.recipes) and config.select.n > count:
        raise ConfigError(
            f"select.n ({config.select.n}) is larger than the approaches drawn per question ({count} slots, one kept of each): "
            "raise generate.slots or lower select.n"
        )
    return made


def check_slots(config: RunConfig, catalogue: Catalogue, kinds: Iterable[str], choose: Callable[[Iterable[int]], int]) -> None:
    """Whether slots would be copies of each other: for all kinds of questions (max), or for one of them (min)."""
    generate = config.generate
    if generate is None or generate.slots is None:
        return
    heuristics = catalogue.pick(generate.heuristics)
    most = choose(most_slots(heuristics, generate.exemplars, kind) for kind in set(kinds))  # type: ignore[arg-type]
    if generate.slots > most:
        raise ConfigError(
            f"generate.slots ({generate.slots}): no two may be alike; the heuristics, with {generate.exemplars} exemplars each, make only "
            f"{most} for these questions; lower it, or add heuristics or exemplars"
        )
