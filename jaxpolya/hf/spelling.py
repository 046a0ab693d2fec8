"""Text ↔ tokens of a tokenizer, where a control token is one only if a template wrote it.

A tokenizer takes `<|im_end|>` for the end of a turn wherever it reads it, in a question that quotes a chat log too. Who asks such a
question would end the user's turn in the middle of it. So text that is data is *protected* before it enters a template: what spells a
control token there is replaced by a mark. Of the text that comes out, `plain` is what a person reads, and `encode` gives the tokens:
those of the template's control tokens, and for the marks those of ordinary text.

Text without marks is encoded by the tokenizer itself. For the others there is a twin: the same tokenizer, whose control tokens have
names that no text spells. The template's control tokens are renamed, what the data says stays, and one call encodes the whole. So
nothing is cut apart that the tokenizer would join, and a space that it puts before a text is put where it would be.

Control tokens are the special ones, those that the chat template names, the beginning and end of a text, and the tags of a thought.
Other added tokens, such as Gemma's for runs of spaces or tags of HTML, are how its text is written, and stay so in data.

The way back, `decode`, spells every token: what a model wrote with a control token is told from its text alone.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxpolya.hf.chat import Tokenizer, template_of, turn_ends
from jaxpolya.verify.speech import opened_thought

MARK, NAME = "\ufdd0", "\ufdd1"
"""Around a control token's number: in protected text, and in the twin's names. No text has these: Unicode keeps them for such use."""
MARKED = re.compile(f"{MARK}([0-9]*){MARK}")


class Spelling:
    """Encodes and decodes for one tokenizer.

    Args:
      tokenizer: a fast one of transformers.
      arguments: of its chat template.
    """

    def __init__(self, tokenizer: Tokenizer, arguments: Mapping[str, Any] | None = None):
        self._tokenizer = tokenizer
        added, template = tokenizer.added_tokens_decoder, json.dumps(tokenizer.chat_template, ensure_ascii=False)
        ids = {i for i, token in added.items() if token.special or _is_control(token.content, template)}
        ids |= {i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None}
        if template_of(tokenizer):
            ids |= set(turn_ends(tokenizer, arguments))
        self._control: dict[str, int] = {added[i].content if i in added else self._name(i): i for i in sorted(ids)}
        longest_first = sorted(filter(None, self._control), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def protect(self, text: str) -> str:
        """Text as data: with marks where it spells control tokens."""
        text = text.replace(MARK, "")
        protected = self._spelled.sub(lambda match: f"{MARK}{self._control[match[0]]}{MARK}", text)
        # Full-width letters, say, may spell one only after the tokenizer's normalizer: an empty mark tells that of the text around.
        return f"{MARK}{MARK}{protected}" if protected == text and self._spelled.search(self._normalized(text)) else protected

    def plain(self, text: str) -> str:
        """Protected text as a person reads it."""
        return MARKED.sub(lambda mark: self._names[mark[1]], text) if MARK in text else text

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, protected where it is data; nothing is put around it."""
        return self.encoding(text).ids if MARK in text else self._tokenizer.encode(text, add_special_tokens=False)

    def encoding(self, text: str) -> Any:
        """The `tokenizers.Encoding` of a text, protected where it is data. Its offsets are those of `renamed(text)`."""
        return self._twin.encode(self.renamed(text), add_special_tokens=False)

    def renamed(self, text: str) -> str:
        """A text in the twin's names: nothing but the template's control tokens has changed."""
        return self.plain(self._spelled.sub(lambda match: _hidden(self._control[match[0]]), text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens spelled out, and nothing tidied."""
        return self._decode(ids)

    @functools.cached_property
    def _decode(self) -> Callable[[Sequence[int]], str]:
        tokenizer: Any = self._tokenizer
        if backend := getattr(tokenizer, "backend_tokenizer", None):  # transformers' own method takes as long again
            return functools.partial(backend.decode, skip_special_tokens=False)
        return functools.partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        return {str(i): content for content, i in self._control.items()} | {"": ""}

    @functools.cached_property
    def _twin(self) -> Any:
        from tokenizers import Tokenizer as Backend

        tokenizer: Any = self._tokenizer
        return Backend.from_str(json.dumps(twin(json.loads(tokenizer.backend_tokenizer.to_str()), self._control)))

    def _normalized(self, text: str) -> str:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        normalizer = backend and backend.normalizer
        return normalizer.normalize_str(text) if normalizer else text

    def _name(self, i: int) -> str:
        tokenizer: Any = self._tokenizer
        return str(tokenizer.convert_ids_to_tokens(i))


def twin(tree: dict[str, Any], control: Mapping[str, int]) -> dict[str, Any]:
    """The tree of a tokenizer.json whose control tokens (content → id) have other names, under the same ids."""
    model, names = tree["model"], {content: _hidden(i) for content, i in control.items()}
    if isinstance(vocab := model.get("vocab"), dict):
        model["vocab"] = {names.get(token, token): i for token, i in vocab.items()}
    elif vocab:  # Unigram: pieces with their scores, in the order of ids
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if "merges" in model:  # nothing merges into a token that no text spells
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
        model["merges"] = [[left, right] for left, right in pairs if not {left, right, left + right} & names.keys()]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    added = [
        token | {"content": names[token["content"]], "normalized": False} if token["content"] in names else token
        for token in tree["added_tokens"]
    ]
    # What surrounds or cuts a whole text is the caller's; a post-processor would also look for tokens under their old names.
    return tree | {"model": model, "added_tokens": added, "post_processor": None, "truncation": None, "padding": None}


def _is_control(content: str, template: str) -> bool:
    """Whether an added token that isn't special is one of the conversation's form all the same."""
    return bool(content.strip()) and (content in template or bool(opened_thought(content.replace("/", "", 1))))


def _hidden(i: int) -> str:
    return f"{NAME}{i}{NAME}"
