"""Reinforcement learning. Symbols are those of the papers that docs/algorithms.md names."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from jaxpolya.config.base import CONTENT, HOW, LATER, Door, Fraction, Seed, Strict, known
from jaxpolya.config.model import Sampling
from jaxpolya.config.questions import Sources
from jaxpolya.config.training import Batching, LoraConfig, Optimizer, ValidationConfig

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

REWARDS = ("verdict", "correct")
"""What is built in of rewards; see `rollout.rewards`."""

Aggregation = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "constant"]
"""What a policy loss is a mean over; see `train.losses.aggregate`."""

KlEstimator = Literal["k1", "k2", "k3"]
"""How a divergence is estimated at a token; see `train.losses.kl_estimates`."""


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
    share_prompts: Annotated[bool, LATER] = False
    """Compute a prompt once for all responses that lie in a packed row with it, instead of once for each (docs/algorithms.md): fewer
    rows, and the same numbers up to rounding."""
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
