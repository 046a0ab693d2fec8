"""The base model, and how responses are drawn from it."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from jaxpolya.config.base import CONTENT, HOW, Strict
from jaxpolya.config.paths import PLACE

NO_ARGUMENTS = frozenset(
    {"conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template", "padding", "truncation"}
    | {"max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"}
)
"""Names that are no arguments of a chat template, but of the call that fills it in."""


class ModelConfig(Strict):
    """The base model π_0: generates, is fine-tuned, and starts RL."""

    source: Annotated[str, CONTENT, PLACE]
    """A Hugging Face directory, a `.gguf` file, a hub name, or a model that jaxpolya wrote."""
    revision: Annotated[str | None, CONTENT] = None
    """Commit or tag of a hub model."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Activations and the decode copy; parameters are trained in float32."""
    attention: Annotated[Literal["auto", "xla", "cudnn", "splash"], HOW] = "auto"
    """What computes attention in training, scoring and prefill: XLA on any device, cuDNN on NVIDIA GPUs, Splash on TPUs; they differ in
    rounding. `auto` takes the device's own where a trial at the start shows that it does what the model needs."""
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

    @property
    def greedy(self) -> "Sampling":
        """The same, of the likeliest token at every step."""
        return self.model_copy(update={"temperature": 0.0, "top_k": 0, "top_p": 1.0})
