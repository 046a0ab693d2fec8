"""What a chat template writes: a conversation as text, and what ends a message.

Which tokens end a response is often said by the template alone. Fine-tunes of a base model keep its `<|endoftext|>` as the eos of every
file, while their template ends each message with `<|im_end|>`, which is what the model then writes. So the template is asked: it is
given an answer, and what stands behind that is looked at. The last message's end comes first; templates that write nothing there
(GLM's) end a message by opening the next one.

This module imports neither jax nor transformers; a tokenizer is whatever has the few methods of `Tokenizer`.
"""

from collections.abc import Mapping
from typing import Any, Protocol


class Tokenizer(Protocol):
    """What is needed of a `transformers.PreTrainedTokenizerFast`."""

    chat_template: Any
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id → added token, with its `content`."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """A conversation as text."""


DATE = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
"""The date for templates that tell the model one: what Llama 3's takes where it knows none. With today's, a stage that is resumed
tomorrow would go on with other prompts, and a model would be evaluated under others than it was trained on."""

FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{code}', '{text}')" for code, text in DATE.items())
    + " }}{%- endmacro %}"
)

QUESTION, REPLY, NEXT = "2 + 2?", "It makes four.", "And 3 + 3?"
"""A conversation that a template is shown; no template writes such words itself."""


def template_of(tokenizer: Tokenizer) -> Any:
    """The template of a conversation; None where there is none. Of several by name, one without tools is for the default one."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def chat_text(
    tokenizer: Tokenizer,
    conversation: list[dict[str, str]],
    *,
    add_generation_prompt: bool = True,
    arguments: Mapping[str, Any] | None = None,
) -> str:
    """A conversation under the tokenizer's chat template; the same text every day.

    `arguments` are the template's own, such as `enable_thinking`. Raises jinja2's `TemplateError`.
    """
    template = template_of(tokenizer)
    options: dict[str, Any] = {**(arguments or {}), "tokenize": False, "add_generation_prompt": add_generation_prompt}
    if isinstance(template, str) and "strftime_now" in template:
        options["chat_template"] = FIXED_DATE + template
    return str(tokenizer.apply_chat_template(conversation, **options))


def dialogue(reply: str = REPLY, system: str | None = None) -> list[dict[str, str]]:
    """A conversation that ends with an answer."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": QUESTION}, {"role": "assistant", "content": reply}]


def turn_ends(tokenizer: Tokenizer, arguments: Mapping[str, Any] | None = None, system: str | None = None) -> tuple[int, ...]:
    """Ids of the tokens that the chat template writes first after an assistant's message: after the last one, and between turns.

    Empty without a template, and for one that writes no token of its own there, or that can't be shown such a conversation.
    """
    last, between = _after_last(tokenizer, arguments, system), _between(tokenizer, arguments, system)
    ids = [_first_token(tokenizer, text) for text in (last, between)]
    if ids[0] is None and last.strip():  # a token that isn't among the added ones is found by its name
        whole = tokenizer.encode(last.strip(), add_special_tokens=False)
        ids[0] = whole[0] if len(whole) == 1 and whole[0] != tokenizer.unk_token_id else None
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def turn_end_text(tokenizer: Tokenizer, arguments: Mapping[str, Any] | None = None, system: str | None = None) -> str:
    """What ends an assistant's message where the template marks that by words alone: an end that is no token of this tokenizer, or what
    opens the next turn (`### Human:`). Else empty.
    """
    last, between = _after_last(tokenizer, arguments, system).rstrip(), _between(tokenizer, arguments, system)
    if _first_token(tokenizer, last) is not None:
        return ""
    if last and between.startswith(last):
        return last
    return between.rstrip(" ") if between.strip() and not turn_ends(tokenizer, arguments, system) else ""


def _after_last(tokenizer: Tokenizer, arguments: Mapping[str, Any] | None, system: str | None) -> str:
    return _behind(tokenizer, dialogue(system=system), arguments)


def _between(tokenizer: Tokenizer, arguments: Mapping[str, Any] | None, system: str | None) -> str:
    text = _behind(tokenizer, [*dialogue(system=system), {"role": "user", "content": NEXT}], arguments)
    return text.partition(NEXT)[0] if NEXT in text else ""


def _behind(tokenizer: Tokenizer, conversation: list[dict[str, str]], arguments: Mapping[str, Any] | None) -> str:
    """What a template writes behind the answer."""
    if not template_of(tokenizer):
        return ""
    try:
        text = chat_text(tokenizer, conversation, add_generation_prompt=False, arguments=arguments)
    except Exception:  # a template is a program of its own: what it can't be shown, it says nothing about
        return ""
    _, shown, behind = text.rpartition(REPLY)
    return behind if shown else ""


def _first_token(tokenizer: Tokenizer, text: str) -> int | None:
    """The first added token of a text that is no white space; some tokenizers have added tokens for that."""
    added = tokenizer.added_tokens_decoder
    # A beginning of text is no end, unless one token is both.
    begins = None if tokenizer.bos_token_id == tokenizer.eos_token_id else tokenizer.bos_token_id
    ids = tokenizer.encode(text, add_special_tokens=False)
    return next((i for i in ids if i in added and added[i].content.strip() and i != begins), None)
