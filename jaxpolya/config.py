"""What a run is, said once: one small strict model a stage. `config_file` reads them from YAML.

Everything is checked before anything is loaded. An unknown key is answered with the nearest known one; an impossible
combination is named by its keys. Symbols in the field docs are those of the paper (arXiv 2605.08472) and of docs/design.md.
This module imports neither jax nor numpy.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from jaxpolya.arms import ARMS, RECIPES, Arm, Recipe
from jaxpolya.config_paths import PLACE
from jaxpolya.doors import Door, is_reference
from jaxpolya.records import Extraction, Kind, Unevaluated

Fraction = Annotated[float, Field(ge=0, le=1)]
LARGEST_SEED = 2**31
Seed = Annotated[int, Field(ge=0, lt=LARGEST_SEED)]
"""What every random generator that we use takes."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Marks a field that stages are not known by (`runs.identity.stage_fields`).

    Every field without it is part of their identity: a new one that changes a result can't reuse what was drawn without it.
    """

    why: str


HOW = LeftOut("it says how fast, how often or where a stage works; what comes out is the same")
CONTENT = LeftOut("it names an input; the identity holds the input's content in its place")


@dataclasses.dataclass(frozen=True)
class Later:
    """Marks a field that came after the stages of this directory format were first made, and whose default does what they did.

    At its default it is no part of an identity, so that they are found; at any other value it is. The default must never change.
    """


LATER = Later()

SEEDED = ("generate", "select", "sft", "rl", "eval")
"""The parts of a run that have a seed."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What may name a directory."""

Aggregation = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "constant"]
"""What a policy loss is a mean over; see `train.losses.aggregate`."""

ALGORITHMS = (
    "grpo",
    "dr_grpo",
    "dapo",
    "gspo",
    "gspo_token",
    "cispo",
    "rloo",
    "reinforce++",
    "reinforce++-baseline",
    "maxrl",
    "reinforce",
    "ppo",
)
"""The algorithms that are built in; see `train.algorithms`."""

ADHERENCES = ("pmi", "reward_model")
"""The scorers of adherence that are built in; see `score.adherence`."""

KEEPS = ("best", "random", "diverse")
"""The rules of selection that are built in; see `polya.keep`."""

SINKS = ("tensorboard", "wandb", "trackio")
"""What is built in of what training can log to; see `train.sinks`."""

JUDGES = ("none", "acts", "markers", "model")
"""Who is built in of those who say which heuristics a solution uses; see `evaluation.judges`."""

KERNELS = ("ngram",)
"""What is built in of similarities of responses; see `evaluation.diversity`."""

LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""A weight that may have an adapter, by the name that PEFT and transformers have for it."""

REWARDS = ("verdict", "correct")
"""What is built in of rewards; see `rollout.rewards`."""

KlEstimator = Literal["k1", "k2", "k3"]
"""How a divergence is estimated at a token; see `train.losses.kl_estimates`."""

NO_ARGUMENTS = frozenset(
    {"conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template", "padding", "truncation"}
    | {"max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
)
"""Names that are no arguments of a chat template, but of the call that fills it in."""


def ours_or_own(name: str, ours: Sequence[str]) -> str:
    """A door's value, if it is one of our names or a reference to something of the user's. Raises `ValueError`."""
    if is_reference(name) or name in ours:
        return name
    own = "module:attribute or path/to/file.py:attribute"
    if not ours:
        raise ValueError(f"{name!r} names nothing; write {own}")
    close = difflib.get_close_matches(name, ours, n=1)
    raise ValueError(f"{name!r} is none of {', '.join(ours)}, nor {own}{f'; did you mean {close[0]}?' if close else ''}")


def known(ours: Sequence[str]) -> pydantic.AfterValidator:
    """Marks a door whose own names are these."""
    return pydantic.AfterValidator(lambda name: ours_or_own(name, ours))


class Strict(pydantic.BaseModel):
    """Base of all configuration models: no unknown keys, no silent conversions, frozen, field docs from docstrings."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


# Questions -----------------------------------------------------------------------------------------------------------


class Source(Strict):
    """What all question sources share."""

    limit: PositiveInt | None = None
    """Keep at most this many usable questions; unset keeps all."""
    skip: NonNegativeInt = 0
    """Leave out this many first, so that two uses of one source need not overlap."""
    shuffle: Seed | None = None
    """Shuffle with this seed before `skip` and `limit`; unset keeps the order."""
    verifier: Door | None = None
    """Who judges the answers: `math`, `choice`, `code`, `reasoning_gym`, or `module:attribute` or `path/to/file.py:attribute` of a kind of
    one's own (docs/extending.md); unset takes each row's own, else math (choice where there are choices)."""
    extraction: Extraction | None = None
    """How an answer is found in a response; unset takes each row's own, else `statement`."""

    @pydantic.field_validator("verifier")
    @classmethod
    def _known_verifier(cls, name: str | None) -> str | None:
        return name and ours_or_own(name, get_args(Kind))


Ours = Literal["id", "question", "answer", "choices", "context", "tests"]
"""What a row's columns may be for."""


class ColumnSource(Source):
    """A source of rows whose columns may carry other names than ours."""

    columns: dict[Ours, str] = {}
    """Our name → the source's column, where they differ. `a.b` looks into a nested column, `a.0` into a list; a text with columns in
    braces, such as `"{body} {question}"`, is filled in."""
    answer_after: str | None = None
    """Keep of the answer only what follows the last occurrence of this mark (GSM8K: `####`)."""
    answer_pattern: str | None = None
    """Keep of the answer the one group of this regular expression, which must match all of it; other rows are left out and counted."""

    @pydantic.model_validator(mode="after")
    def _one_group(self) -> "ColumnSource":
        try:
            groups = re.compile(self.answer_pattern).groups if self.answer_pattern is not None else 1
        except re.error as error:
            raise ValueError(f"answer_pattern is not a regular expression ({error})") from None
        if groups != 1:
            raise ValueError(f"answer_pattern has {groups} groups; put round brackets around the answer alone, (?:…) around others")
        return self


class JsonlSource(ColumnSource):
    """A local file of JSON lines."""

    kind: Literal["jsonl"]
    path: Annotated[Path, PLACE]
    """The file: one JSON object a line, such as `{"question": …, "answer": …}` (docs/questions.md)."""


class HubSource(ColumnSource):
    """A data set of the Hugging Face hub, or a local directory that `datasets` can load."""

    kind: Literal["hub"]
    name: Annotated[str, PLACE]
    """The set's name, such as `openai/gsm8k`, or a local directory."""
    subset: str | None = None
    """The data set's configuration, such as `main`."""
    split: str = "train"
    """Which part of the set: a split expression of `datasets`, such as `train` or `test[:100]`."""
    revision: str | None = None
    """Commit or tag; pin it for a run that must be repeatable."""


class TfdsSource(ColumnSource):
    """A TensorFlow Datasets builder or prepared directory, read without TensorFlow."""

    kind: Literal["tfds"]
    name: Annotated[str, PLACE]
    """A builder's name (`math_qa`) or a prepared directory."""
    split: str = "train"
    """Which part of the set: a split expression of TFDS, such as `train` or `test[:100]`."""
    data_dir: Annotated[Path | None, PLACE] = None
    """Where prepared builders lie; unset is TFDS's own default."""


class GymSource(Source):
    """Questions made by a reasoning-gym generator: the same name, parameters, seed and size give the same questions."""

    kind: Literal["reasoning_gym"]
    name: str
    """The generator, such as `chain_sum`."""
    size: PositiveInt
    """Questions to make."""
    seed: Seed = 0
    """Seed of the generator; questions of different seeds differ, but may repeat in small families."""
    params: dict[str, Any] = {}
    """The generator's own parameters, such as `{min_terms: 2}`."""

    @pydantic.field_validator("params")
    @classmethod
    def _finite(cls, params: dict[str, Any]) -> dict[str, Any]:
        json.dumps(params, allow_nan=False)  # raises a ValueError: nobody is known by NaN
        return params


class PythonSource(ColumnSource):
    """Records that a function of one's own gives (docs/extending.md)."""

    kind: Literal["python"]
    source: Annotated[Door, known(())]
    """`module:attribute` or `path/to/file.py:attribute` of a function that gives rows, or of rows themselves."""
    arguments: dict[str, Any] = {}
    """What the function is called with, by name, such as `{digits: 3, seed: 1}`."""

    @pydantic.field_validator("arguments")
    @classmethod
    def _finite(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        json.dumps(arguments, allow_nan=False)
        return arguments


AnySource = Annotated[JsonlSource | HubSource | TfdsSource | GymSource | PythonSource, Field(discriminator="kind")]

Sources = Annotated[list[AnySource], Field(min_length=1)]
"""Question sources that are joined."""


# Model, mesh, engine ---------------------------------------------------------------------------------------------------


class ModelConfig(Strict):
    """The base model π_0: generates, is fine-tuned, and starts RL."""

    source: Annotated[str, CONTENT, PLACE]
    """A Hugging Face directory, a `.gguf` file, a hub name, or a model that jaxpolya wrote."""
    revision: Annotated[str | None, CONTENT] = None
    """Commit or tag of a hub model."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Activations and the decode copy; parameters are trained in float32."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Wrap prompts in the tokenizer's chat template: `auto` does where there is one."""
    system: str | None = None
    """System message of the chat template; unset leaves it to the template."""
    chat_arguments: dict[str, Any] = {}
    """What the chat template is told by name, such as `{enable_thinking: false}`."""

    @pydantic.field_validator("chat_arguments")
    @classmethod
    def _the_template_s_own(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(arguments.keys() & NO_ARGUMENTS):
            raise ValueError(f"{', '.join(ours)} can't be set: the prompt itself decides on that")
        return arguments


class MeshConfig(Strict):
    """The device mesh; `replica` spans slices over the data-centre network. −1 on one axis takes what is left."""

    replica: int = 1
    """Data parallel over slices: parameters are copied."""
    fsdp: int = -1
    """Data parallel with sharded parameters."""
    tensor: int = 1
    """Tensor parallel: heads, feed-forward and vocabulary are split."""

    @pydantic.model_validator(mode="after")
    def _one_free_axis(self) -> "MeshConfig":
        sizes = [self.replica, self.fsdp, self.tensor]
        if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError("axis sizes are positive, and at most one of them is -1 (what is left)")
        return self


class DecodeConfig(Strict):
    """Shape of the decode engine. Changes speed and memory (and floating-point rounding), not what is asked of the model."""

    rows: Annotated[PositiveInt, HOW] = 64
    """B: responses decoded side by side over the whole mesh; the samples of a prompt share a lane."""
    burst: Annotated[PositiveInt, HOW] = 16
    """Tokens between two looks of the host: finished rows leave and lanes are refilled only then."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _read_window(cls, given: Any) -> Any:
        """`burst` was called `window`, which means something else in attention; older configurations are read."""
        if isinstance(given, dict) and "window" in given and "burst" not in given:
            return {("burst" if key == "window" else key): value for key, value in given.items()}
        return given


class MathConfig(Strict):
    """What counts as an answer in mathematics."""

    unevaluated: Unevaluated = "refuse"
    """An answer that equals the reference without having been worked out (97 * 49 for 4753): `refuse` judges it wrong; `accept` pays it,
    which RL exploits, and is for comparing with other graders' figures only."""


class CodeConfig(Strict):
    """What programs may do."""

    modules: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]] = []
    """Third-party modules that a program may import, with what they require, beside the standard library; installed on this machine."""


class VerifyConfig(Strict):
    """The verifier: its process pool, and what it accepts."""

    workers: Annotated[PositiveInt | None, HOW] = None
    """Processes on this host; unset is the number of cores, at most 16."""
    deadline: Annotated[PositiveFloat, HOW] = 10.0
    """Seconds for one verdict; then the worker is killed and the verdict is `timeout`. Under a larger one, generate and eval judge their
    time-outs and crashes again."""
    memory_mb: Annotated[PositiveInt, HOW] = 2048
    """Address-space limit of a worker, in MiB; larger, it has the same effect as a larger deadline."""
    math: MathConfig = MathConfig()
    """What counts as an answer in mathematics."""
    code: CodeConfig = CodeConfig()
    """What programs may do."""


class Sampling(Strict):
    """How responses are drawn."""

    max_new_tokens: PositiveInt
    """Longest response; one that reaches it is marked `length`."""
    temperature: NonNegativeFloat = 1.0
    """Divides the logits; 0 is greedy."""
    top_k: NonNegativeInt = 0
    """Draw from the k likeliest tokens only; 0 is off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of tokens with this mass; 1 is off."""
    max_prompt_tokens: PositiveInt | None = None
    """A longer prompt is left out and counted; unset is what the model's context leaves."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Strings that end a response, besides the model's own end-of-text tokens; they are cut off."""


# Stages ----------------------------------------------------------------------------------------------------------------


class GenerateConfig(Strict):
    """The base model answers every training question under every heuristic (paper §3: self-generated approaches)."""

    questions: Annotated[Sources, CONTENT]
    """The mid-training questions; several sources are joined."""
    sampling: Sampling
    """How the responses are drawn."""
    samples: PositiveInt = 4
    """G: responses per (question, slot). The best correct one of them is kept, so more raise the share of slots that have one."""
    heuristics: list[str] | Literal["all"] = "all"
    """Keys of the catalogue, or all of it. Those without exemplars for a question's kind are given their instruction only."""
    slots: PositiveInt | None = None
    """Approach slots: a heuristic with one draw of exemplars each, dealt in turn, no two alike; unset is one a heuristic."""
    exemplars: NonNegativeInt = 2
    """Worked examples of the heuristic that a prompt shows before the question; 0 gives the instruction alone."""
    four_phases: bool = False
    """Frame every heuristic by Pólya's four phases: understand, plan, carry out, look back."""
    catalogue: Annotated[Path | None, CONTENT, PLACE] = None
    """A YAML file that adds heuristics or replaces them by key."""
    plain_samples: PositiveInt = 8
    """Responses per question without any heuristic, for the arms that need them (STaR)."""
    seed: Seed = 0
    """Seed of sampling and of the exemplar draws."""


class SelectConfig(Strict):
    """Which correct responses become fine-tuning data."""

    n: PositiveInt = 4
    """n: approaches kept per question, at most (paper: 1 … 64)."""
    adherence: Annotated[Door, known(ADHERENCES)] = "pmi"
    """Who says how well a response follows its heuristic: the base model's pointwise mutual information (`pmi`), a reward model
    (`reward_model`), or a function of one's own, `module:attribute` or `path/to/file.py:attribute` (docs/extending.md)."""
    keep: Annotated[Door, known(KEEPS), LATER] = "best"
    """Which of the responses to a question are kept, no two of one slot: the ones of best adherence (`best`), random ones (`random`), those
    that are good and differ most (`diverse`), or a rule of one's own, `module:attribute` or `path/to/file.py:attribute`
    (docs/extending.md)."""
    quality: Annotated[Fraction, LATER] = 0.5
    """θ of `keep: diverse`: 1 looks at adherence alone, 0 at how much responses differ."""
    reward_model: Annotated[str | None, CONTENT, PLACE] = None
    """A sequence-classification checkpoint, for `adherence: reward_model`."""
    duplicate_overlap: Fraction = 0.9
    """Of two responses to a question whose token 5-gram sets overlap at least this much (Jaccard), one is kept; 1: exact copies only."""
    max_questions: PositiveInt | None = None
    """Cap on questions, drawn by `seed`: the fixed-budget ablation (few × many against many × one)."""
    match: Literal["none", "instances", "tokens"] = "none"
    """Cut all SFT arms to the smallest one's number of instances or response tokens."""
    external: Annotated[Path | None, CONTENT, PLACE] = None
    """JSON lines of `{question_id or question, response}` for the `external` arms."""
    external_verdicts: Literal["correct", "all"] = "correct"
    """Which of those traces are learned: the ones that the verifier finds correct, or all."""
    seed: Seed = 0
    """Seed of the cap (`max_questions`), of the matching cut (`match`) and of `keep: random`."""


class Optimizer(Strict):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: PositiveFloat
    """The peak of the schedule, which warm-up ends with."""
    warmup: Fraction = 0.1
    """Share of the steps over which the rate rises linearly to its peak."""
    final: Fraction = 0.1
    """Rate at the end of the cosine, as a share of the peak; 1 keeps it constant."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay (AdamW's), on matrices only; 0 is off."""
    b1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """β₁ of Adam: how slowly the mean of the gradients moves."""
    b2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """β₂ of Adam: how slowly the mean of their squares moves."""
    max_grad_norm: PositiveFloat = 1.0
    """Global norm above which a step's gradient is scaled down to it."""


class Batching(Strict):
    """How sequences become device batches: packed rows with segment ids, micro-batches accumulated."""

    row_tokens: PositiveInt
    """T: tokens of a packed row; longer sequences are left out and counted."""
    micro_rows: Annotated[PositiveInt, HOW] = 8
    """B: rows of one forward and backward pass, over the whole mesh."""
    remat: Annotated[Literal["none", "block"], HOW] = "block"
    """Recompute each block in the backward pass instead of keeping its activations."""


class ValidationConfig(Strict):
    """Looks at a model while it is trained, on questions that are neither learned from nor evaluated on."""

    questions: Annotated[Sources, CONTENT]
    """The questions; none of them may be an evaluation set's."""
    sampling: Sampling
    """How responses are drawn."""
    every: PositiveInt = 10
    """Steps between two looks; there is one after the last step too."""
    samples: PositiveInt = 4
    """Responses per question; pass@k is measured for k up to it."""
    greedy: bool = True
    """Ask each question once more at temperature 0."""
    metric: Annotated[str, Field(pattern=r"^(greedy|heldout_loss|pass@[1-9][0-9]*)$")] = "pass@1"
    """What counts: `pass@k` (k a power of two, or `samples`), `greedy`, or in sft `heldout_loss`, of which less is better."""
    keep: Literal["best", "last"] = "best"
    """Which model the training leaves: that of the best look, the first of equals, or that of the last step."""
    patience: PositiveInt | None = None
    """Stop after so many looks in a row that weren't better than the best; unset never does."""
    seed: Seed = 0
    """Seed of the draws, the same ones at every look."""

    @pydantic.model_validator(mode="after")
    def _measured(self) -> "ValidationConfig":
        if self.metric == "greedy" and not self.greedy:
            raise ValueError("metric is greedy, and greedy is off: turn it on")
        k = int(self.metric.removeprefix("pass@")) if self.metric.startswith("pass@") else 1
        if k > self.samples or (k & (k - 1) and k != self.samples):
            raise ValueError(f"metric {self.metric}: k must be a power of two up to samples ({self.samples}), or samples itself")
        return self


class LoraConfig(Strict):
    """Low-rank adapters: the model stays as it is, and small matrices beside its weights are trained (arXiv 2106.09685)."""

    rank: PositiveInt = 16
    """r: rows of A, and columns of B."""
    alpha: PositiveFloat = 32.0
    """α; what an adapter adds is multiplied by α / r."""
    targets: Annotated[list[LoraTarget], Field(min_length=1)] | Literal["all-linear"] = "all-linear"
    """The weights of each layer that have an adapter, by PEFT's names."""
    rslora: bool = False
    """Multiply by α / √r instead, so that the learning rate need not follow the rank (arXiv 2312.03732)."""

    @pydantic.field_validator("targets")
    @classmethod
    def _each_once(cls, targets: list[LoraTarget] | Literal["all-linear"]) -> list[LoraTarget] | Literal["all-linear"]:
        if isinstance(targets, list) and len(set(targets)) < len(targets):
            raise ValueError("name each target once")
        return targets


class SftConfig(Strict):
    """Mid-training: next-token loss on the kept responses, given the bare question."""

    optimizer: Optimizer
    """AdamW, its learning rate and its schedule."""
    batching: Batching
    """How sequences are packed, and how many a device takes at a time."""
    batch_rows: PositiveInt
    """Packed rows per optimizer step, a multiple of `batching.micro_rows`."""
    epochs: PositiveInt = 1
    """Passes over the fine-tuning data."""
    lora: Annotated[LoraConfig | None, LATER] = None
    """Train low-rank adapters instead of all parameters (docs/adapters.md); unset trains all."""
    heldout: Fraction = 0.02
    """Share of the questions whose rows are not learned but measure the held-out loss; 0 holds none out."""
    checkpoint_every: Annotated[PositiveInt, HOW] = 100
    """Steps between two checkpoints, from which a killed stage goes on."""
    seed: Seed = 0
    """Seed of the order of the data and of the held-out split."""
    validation: Annotated[ValidationConfig | None, LATER] = None
    """Looks at the model on the way, keeps the best, and may stop early; unset does nothing of it."""

    @pydantic.model_validator(mode="after")
    def _whole_micro_batches(self) -> "SftConfig":
        if self.batch_rows % self.batching.micro_rows:
            raise ValueError(f"batch_rows ({self.batch_rows}) is not a multiple of batching.micro_rows ({self.batching.micro_rows})")
        if self.validation and self.validation.metric == "heldout_loss" and not self.heldout:
            raise ValueError("validation.metric is heldout_loss, and heldout is 0: hold some questions out")
        return self


class KlConfig(Strict):
    """A divergence from the reference, the model that the arm's RL starts from."""

    weight: PositiveFloat
    """β: what the divergence is multiplied by."""
    estimator: KlEstimator = "k3"
    """`k1` log p − log q, `k2` (log p − log q)² / 2, `k3` q/p − 1 − log q/p. In the loss k1 has no gradient in expectation, k2 that of
    KL(policy ‖ reference), k3 that of KL(reference ‖ policy). In the reward k1 has that of KL(policy ‖ reference), the others neither's."""
    place: Literal["loss", "reward"] = "loss"
    """Added to each token's loss, or taken off its reward before advantages are made."""


class ValueConfig(Strict):
    """The value head of `ppo`: a linear read-out of the decoder's last hidden states, trained beside the policy and never exported."""

    gamma: Fraction = 1.0
    """γ: what a reward counts a token earlier."""
    lam: Fraction = 0.95
    """λ of generalised advantage estimation: 1 trusts returns alone, 0 the next value alone."""
    clip: PositiveFloat | None = 0.2
    """How far an update may move a value from the round's before its loss counts the farther of the two errors; unset is no bound."""
    coefficient: Fraction = 0.1
    """How much of the value loss's gradient goes on into the decoder; 0 trains the head alone."""
    learning_rate: PositiveFloat = 1e-3
    """Peak rate of the head, on the optimizer's schedule; a linear read-out wants a larger one than a decoder."""
    warmup: NonNegativeInt = 5
    """First steps in which the head alone is trained, so that no policy is moved by values of nothing."""


class RlConfig(Strict):
    """Policy gradients from the arm's model, with the verifier's reward or one's own."""

    questions: Annotated[Sources, CONTENT]
    """The RL questions (paper: DAPO-Math-17K); several sources are joined."""
    sampling: Sampling
    """How rollouts are drawn; the loss uses the same temperature."""
    optimizer: Optimizer
    """AdamW, its learning rate and its schedule."""
    batching: Batching
    """How sequences are packed, and how many a device takes at a time."""
    steps: PositiveInt
    """Rounds of rollouts and updates."""
    prompts: PositiveInt
    """Questions asked in a round."""
    group: Annotated[int, Field(ge=2)] = 16
    """G: rollouts per question (paper: 16)."""
    updates: PositiveInt = 1
    """Optimizer steps per pass over a round, whose groups are split evenly among them; must divide `prompts`."""
    lora: Annotated[LoraConfig | None, LATER] = None
    """Train low-rank adapters instead of all parameters, beside the arm's model with its own adapters merged (docs/adapters.md); unset
    trains all."""
    algorithm: Annotated[Door, known(ALGORITHMS)] = "grpo"
    """One that is built in (docs/algorithms.md), or `module:attribute` or `path/to/file.py:attribute` of one's own."""
    reward: Annotated[Door, known(REWARDS), LATER] = "verdict"
    """What a response is paid: `verdict` (1 where it is right, else 0, or the score of a verifier that gives partial credit), `correct` (1
    where it is right, else 0), or `module:attribute` or `path/to/file.py:attribute` of a function of one's own (docs/extending.md)."""
    aggregation: Aggregation | None = None
    """What the loss is a mean over; unset takes the algorithm's own. `seq_mean_token_mean` is that of GRPO as first published (arXiv
    2402.03300): the mean over responses of each one's token mean."""
    clip_low: Fraction | None = None
    """ε_low of the ratio's clip; unset takes the algorithm's own."""
    clip_high: NonNegativeFloat | None = None
    """ε_high of the ratio's clip; unset takes the algorithm's own."""
    clip_dual: Annotated[float, Field(gt=1)] | None = None
    """c of the dual clip, for tokens of negative advantage; unset takes the algorithm's own, which is none in those built in."""
    kl: KlConfig | None = None
    """A divergence from the model that the arm's RL starts from, of which a copy in the compute dtype is held; unset is none."""
    entropy_bonus: NonNegativeFloat = 0.0
    """Times the entropy of each token's distribution (nats), is taken off the loss."""
    mask_truncated: bool = False
    """Leave responses that hit `max_new_tokens` out of the loss (overlong filtering)."""
    overlong_buffer: NonNegativeInt | None = None
    """Over the last so many of `max_new_tokens`, the reward falls evenly by 1 (DAPO's soft penalty); 0 is off, and unset takes the
    algorithm's own: a fifth of `max_new_tokens` in `dapo`, else off."""
    refills: NonNegativeInt | None = None
    """How often a round asks `prompts` further questions to replace groups whose rewards are all equal (DAPO's dynamic
    sampling); unset takes the algorithm's own: 9 in `dapo`, else none."""
    epochs: PositiveInt = 1
    """μ: passes over a round, each of `updates` optimizer steps."""
    old_logprobs: Literal["sampler", "trainer"] = "sampler"
    """Whose log-probs the ratio is taken against: those that the sampler recorded, or the trainer's own, computed before a round's first
    update (one more forward pass)."""
    tis: PositiveFloat | None = None
    """C: weighs each token's loss by min(trainer's / sampler's probability, C); needs `old_logprobs: trainer`."""
    icepop: tuple[NonNegativeFloat, PositiveFloat] | None = None
    """[α, β]: weighs each token's loss by the trainer's / the sampler's probability, or by 0 outside of these; needs `old_logprobs:
    trainer`."""
    replay: Annotated[Door | None, CONTENT] = None
    """Learn from rollouts that are there already, and ask nobody: a run's directory or its RL stage's, a file of JSON lines, or
    `module:attribute` or `path/to/file.py:attribute` of one's own (docs/extending.md); unset asks the model."""
    checkpoint_every: Annotated[PositiveInt, HOW] = 10
    """Steps between two checkpoints, from which a killed stage goes on."""
    value: Annotated[ValueConfig | None, LATER] = None
    """The value head, for algorithms that have one (`ppo`); unset takes its defaults."""
    validation: Annotated[ValidationConfig | None, LATER] = None
    """Looks at the model on the way, keeps the best, and may stop early; unset does nothing of it."""
    drift: Annotated[list[Literal["start", "base"]], HOW] = []
    """Log how far the policy is from the model that the arm's RL starts from, or from the base model, on each round's tokens; each holds a
    copy of that model in the compute dtype, and takes a forward pass a round. With `kl` the start's is logged in any case."""
    evaluate_at: Annotated[list[PositiveInt], HOW] = []
    """Steps after which the model is kept and evaluated as the arm's last one is: doses of RL, from one training."""
    seed: Seed = 0
    """Seed of question order and of sampling."""

    @property
    def doses(self) -> list[int]:
        """The steps of `evaluate_at` but the last of all, where its model is the arm's own."""
        last_is_left = self.validation is None or self.validation.keep == "last"
        return [step for step in self.evaluate_at if step < self.steps or not last_is_left]

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "RlConfig":
        if sorted(set(self.evaluate_at)) != self.evaluate_at or (self.evaluate_at and self.evaluate_at[-1] > self.steps):
            raise ValueError(f"evaluate_at ({self.evaluate_at}) must be steps in rising order, the last at most `steps` ({self.steps})")
        if self.validation and self.validation.metric == "heldout_loss":
            raise ValueError("validation.metric: heldout_loss is a fine-tuning's; take greedy or a pass@k")
        if self.validation and self.validation.patience and self.evaluate_at:
            raise ValueError("evaluate_at names steps that validation.patience may not come to: leave one of them out")
        if self.prompts % self.updates:
            raise ValueError(f"prompts ({self.prompts}) is not a multiple of updates ({self.updates})")
        if (self.overlong_buffer or 0) > self.sampling.max_new_tokens:
            raise ValueError(f"overlong_buffer ({self.overlong_buffer}) exceeds sampling.max_new_tokens ({self.sampling.max_new_tokens})")
        if self.tis is not None and self.icepop is not None:
            raise ValueError("tis and icepop are two corrections of the same difference; set one of them")
        if (self.tis is not None or self.icepop is not None) and self.old_logprobs == "sampler":
            raise ValueError("tis and icepop weigh the trainer's probabilities against the sampler's: set old_logprobs to trainer")
        if self.icepop is not None and not self.icepop[0] <= 1 <= self.icepop[1]:
            raise ValueError(f"icepop ({list(self.icepop)}) must have 1 between its ends: it is the weight of a token on which both agree")
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature is 0: greedy rollouts of a group are all alike and carry no signal")
        if self.sampling.top_k or self.sampling.top_p < 1:
            raise ValueError("sampling.top_k and top_p must be off in RL: the loss is defined on the full vocabulary")
        return self


class EvalConfig(Strict):
    """Unbiased pass@k of every arm on every question set."""

    questions: Annotated[dict[Annotated[str, Field(pattern=NAME)], Sources], CONTENT] = Field(min_length=1)
    """Question sets by name, each a list of sources. The first one decides which arm is the best."""
    sampling: Sampling
    """How responses are drawn for pass@k and the majority vote."""
    samples: PositiveInt = 16
    """Responses per question; pass@k is reported for k up to it."""
    greedy: bool = False
    """Ask each question once more at temperature 0, and report that accuracy too."""
    bootstrap: Annotated[PositiveInt, HOW] = 1000
    """Resamples of the questions behind each 95 % interval."""
    composition: Annotated[Door, known(JUDGES)] = "acts"
    """Who says which heuristics a solution uses: `none`, `acts` (rules that look for what is done), `markers` (the catalogue's), `model`
    (the base model is asked; slow), or a judge of your own (docs/composition.md)."""
    kernel: Annotated[Door, known(KERNELS), HOW] = "ngram"
    """How similar two responses are, for the Vendi score: `ngram`, or a kernel of your own (docs/diversity.md). No stage rests on it."""
    seed: Seed = 0
    """Seed of sampling and of the bootstrap."""


class ContaminationConfig(Strict):
    """The search for training questions that an evaluation set asks too."""

    n: PositiveInt = 13
    """Words in a row that make two questions overlap; a question with fewer is compared as a whole."""
    drop: bool = False
    """Leave overlapping questions out of training, instead of only reporting them."""


class RunConfig(Strict):
    """A whole run."""

    name: str = Field(pattern=NAME)
    """The run's directory is `output`/`name`; the same name and fields find what is done."""
    model: ModelConfig
    """The base model that everything starts from."""
    generate: GenerateConfig | None = None
    """The base model's own responses under heuristics; needed by arms that are fine-tuned."""
    select: SelectConfig = SelectConfig()
    """Which correct responses become fine-tuning data."""
    sft: SftConfig | None = None
    """Mid-training: fine-tuning on what was selected; needed by arms that are fine-tuned."""
    rl: RlConfig | None = None
    """Reinforcement learning with the verifier's reward; needed by arms with `rl`."""
    eval: EvalConfig
    """The questions that every arm is asked at the end."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Overlap of the training questions with the evaluation sets."""
    seeds: Annotated[list[Seed], Field(max_length=100)] = []
    """Do the run once for each of these, added to its five seeds (of `generate`, `select`, `sft`, `rl` and `eval`): what a seed changes is
    drawn anew, the rest is shared, and figures have intervals over seeds and questions. Three are few, five are better."""
    arms: list[Literal[tuple(ARMS)]] = ["base", "rl", "star+rl", "polya+rl"]  # type: ignore[valid-type]
    """The paths to compare; `base` is the untrained model, and docs/design.md (section 1) describes the others. They share stages."""
    output: Path = Path("runs")
    """Where run directories lie, from the working directory: a path that all hosts see (it needs locks and appending, so no bucket)."""
    mesh: MeshConfig = MeshConfig()
    """How the devices are laid out."""
    decode: DecodeConfig = DecodeConfig()
    """How many responses are decoded side by side."""
    verify: VerifyConfig = VerifyConfig()
    """The verifier's processes and limits, and what it accepts."""
    export: bool = True
    """Write the best arm as a Hugging Face directory at the end."""
    log: Annotated[list[Door], HOW] = []
    """Where else the numbers of training and evaluation go while the run works: `tensorboard`, `wandb` and `trackio` (each needs the extra
    of its name), or a sink of one's own, `module:attribute` or `path/to/file.py:attribute` (docs/extending.md)."""

    @pydantic.field_validator("log")
    @classmethod
    def _known_sinks(cls, names: list[str]) -> list[str]:
        for name in names:
            ours_or_own(name, SINKS)
        if len(set(names)) < len(names):
            raise ValueError("name each sink once")
        return names

    _file: Path | None = pydantic.PrivateAttr(None)

    def read_from(self, file: Path) -> "RunConfig":
        """This configuration, knowing the file that it was read from."""
        self._file = file
        return self

    @property
    def starts(self) -> tuple[Path, ...]:
        """The directories at which paths in it start, in the order in which they are tried (`config_paths`)."""
        return (self._file.parent, Path()) if self._file else (Path(),)

    def with_seed(self, seed: int) -> "RunConfig":
        """This run with a number added to every seed, alone. Raises `ValueError` where that is larger than a seed may be."""
        changed: dict[str, Any] = {"seeds": [], "export": False}
        for name in SEEDED:
            if (part := getattr(self, name)) is not None:
                changed[name] = part.model_copy(update={"seed": part.seed + seed})
                if part.seed + seed >= LARGEST_SEED:
                    raise ValueError(f"seeds: {seed} and {name}.seed ({part.seed}) are together more than a seed may be")
        return self.model_copy(update=changed)

    @property
    def sources(self) -> Iterator[tuple[str, AnySource]]:
        """All question sources that the arms need, with their keys."""
        sets = [("generate.questions", self.generate.questions)] if self.generate and self.recipes else []
        sets += [("rl.questions", self.rl.questions)] if self.rl and self.reinforced else []
        sets += [(f"eval.questions.{name}", sources) for name, sources in self.eval.questions.items()]
        return ((f"{key}.{number}", source) for key, sources in sets for number, source in enumerate(sources))

    @property
    def compared(self) -> list[Arm]:
        """The arms, as values."""
        return [ARMS[name] for name in self.arms]

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes of fine-tuning data that the arms need, in the order of their table."""
        needed = {arm.recipe for arm in self.compared}
        return [recipe for recipe in RECIPES.values() if recipe.trained and recipe in needed]

    @property
    def reinforced(self) -> list[Arm]:
        """The arms that end in RL."""
        return [arm for arm in self.compared if arm.rl]

    @property
    def validated(self) -> dict[Literal["sft", "rl"], ValidationConfig]:
        """The validations of the trainings that the arms need."""
        validations: dict[Literal["sft", "rl"], ValidationConfig] = {}
        if self.recipes and self.sft and self.sft.validation:
            validations["sft"] = self.sft.validation
        if self.reinforced and self.rl and self.rl.validation:
            validations["rl"] = self.rl.validation
        return validations

    @property
    def doses(self) -> list[Arm]:
        """Those arms at the steps at which they are also looked at (`rl.evaluate_at`)."""
        return [Arm(arm.recipe, rl=True, step=step) for arm in self.reinforced for step in (self.rl.doses if self.rl else ())]

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: name each seed once")
        for seed in self.seeds:
            self.with_seed(seed)
        if len(set(self.arms)) < len(self.arms) or not self.arms:
            raise ValueError("arms: name each arm once, and at least one")
        named = ", ".join(recipe.name for recipe in self.recipes)
        if self.recipes and self.sft is None:
            raise ValueError(f"sft is missing, and the arms {named} need it")
        if self.recipes and self.generate is None:
            raise ValueError(f"generate is missing, and the arms {named} need its questions")
        if self.reinforced and self.rl is None:
            raise ValueError("rl is missing, and an arm needs it")
        if any(recipe.traces for recipe in self.recipes) and self.select.external is None:
            raise ValueError("select.external is missing, and the external arms need it")
        if self.select.adherence == "reward_model" and not self.select.reward_model:
            raise ValueError("select.reward_model is missing, and select.adherence asks for one")
        return self
