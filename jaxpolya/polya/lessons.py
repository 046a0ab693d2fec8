"""What fine-tuning learns, as tokens.

A response of the model's own is learned as the tokens that it was drawn in: tokenized once more, by itself, it would be other tokens
than the model writes after a prompt (a tokenizer that puts a space before a text puts one before each response). Behind them comes the one
token that the template ends a turn with, whatever the model ended by. Where a stop string cut the text inside a token, the rest of
that token is tokenized anew.

A trace from a file has no tokens. It is tokenized together with its prompt and cut out behind it, so that nothing comes between the two
but the white space that the template itself writes there. Control tokens that it spells are text, with two exceptions. What
it spells at its end of a turn's end is left away, for one comes anyway. And its thought is the model's thought: the tags are the control
tokens, if the tokenizer has such, and prompt and response together open it once. A prompt that ends in `<think>` has done so
already, and a trace without a thought closes that at once; one that ends in a closed thought asked for none.
"""

import re
from collections.abc import Iterator, Sequence

from jaxpolya.errors import InputError
from jaxpolya.hf.chat import Tokenizer
from jaxpolya.hf.spelling import Spelling
from jaxpolya.polya.prompts import PromptBuilder
from jaxpolya.records import Question, Sample, SftRow
from jaxpolya.verify.speech import opened_thought

TAG = re.compile(r"[<\[◁](?P<slash>/?)(?P<name>[^<>\[\]◁▷\s/]{1,80})[>\]▷]")
ANCHORS = ("\n", ".", "a", "0")
"""Texts before a piece of text that is tokenized by itself, so that it doesn't begin one: the first that doesn't merge with it is taken."""


class Lessons:
    """Makes the tokens of one model's fine-tuning.

    Args:
      tokenizer: the model's.
      builder: of its prompts.
      stop_ids: of which any ends a response.
    """

    def __init__(self, tokenizer: Tokenizer, builder: PromptBuilder, stop_ids: Sequence[int]):
        self._builder, self._spelling, self._stop_ids = builder, builder.spelling, frozenset(stop_ids)
        self._end = builder.end_id(stop_ids)
        names = sorted((self._spelling.decode([i]) for i in stop_ids), key=len, reverse=True)
        self._ends = re.compile(rf"(?:\s*(?:{'|'.join(map(re.escape, filter(None, names))) or '(?!)'}))+\s*\Z")

    def sample_row(self, question: Question, sample: Sample, *, adherence: float | None = None, source: str) -> SftRow:
        """A response that ended by itself, behind the bare question: the heuristic's instruction is taken away."""
        built = self._builder.build(question)
        return SftRow(
            question_id=question.id,
            prompt=built.text,
            response=sample.response,
            prompt_ids=list(built.ids),
            token_ids=self._drawn(sample),
            heuristic=sample.heuristic,
            slot=sample.slot,
            adherence=adherence,
            source=source,
        )

    def trace_row(self, question: Question, trace: str) -> SftRow:
        """A trace behind the bare question. Raises `InputError` where nothing of it is left."""
        prompt = self._builder.protected(question)
        plain = self._spelling.plain(prompt)
        response = one_thought(plain, self._ends.sub("", trace))
        if not response.strip():
            raise InputError("the trace says nothing beside the end of a turn, or a thought that the prompt has closed")
        if not response[0].isspace():
            response = self._builder.lead + response
        marked = self._spelling.protect(response)
        for tag in _thought(response):
            marked = marked.replace(self._spelling.protect(tag), tag, 1)
        return SftRow(
            question_id=question.id,
            prompt=plain,
            response=response,
            prompt_ids=self._builder.encode(prompt),
            token_ids=[*behind(self._spelling, prompt, marked), self._end],
            source="external",
        )

    def _drawn(self, sample: Sample) -> list[int]:
        tokens = sample.token_ids
        if tokens and tokens[-1] in self._stop_ids:
            tokens = tokens[:-1]
        kept = len(tokens)
        while not sample.response.startswith(text := self._spelling.decode(tokens[:kept])):  # empty in the end
            kept -= 1
        return [*tokens[:kept], *continued(self._spelling, sample.response[len(text) :]), self._end]


def one_thought(prompt: str, response: str) -> str:
    """A trace whose thought, with what the prompt says of it, is opened once and closed."""
    tags = list(_tags(response))
    closes = [tag for tag in tags if tag["slash"]]
    opens = bool(tags) and not tags[0]["slash"] and not response[: tags[0].start()].strip()
    if opened := opened_thought(prompt):
        if not tags:
            return f"\n{_closing(opened.strip())}\n\n{response.lstrip()}"
        rest = response[tags[0].end() :] if opens else response
        return rest.lstrip("\n") if prompt.endswith("\n") else rest
    if _ends_thought(prompt):
        return response[closes[-1].end() :].lstrip("\n") if closes else response
    if tags and tags[0]["slash"]:  # the template that it was written under had opened it
        return tags[0][0].replace("/", "", 1) + "\n" + response.lstrip("\n")
    return response


def _closing(tag: str) -> str:
    """The tag that closes a thought: `</think>` of `<think>`, `<|END_THINKING|>` of `<|START_THINKING|>`."""
    ended = re.sub("start|begin", lambda word: "END" if word.group().isupper() else "end", tag, count=1, flags=re.IGNORECASE)
    return ended if ended != tag else f"{tag[0]}/{tag[1:]}"


def behind(spelling: Spelling, prompt: str, response: str) -> list[int]:
    """The tokens of a response where it stands behind a prompt, both protected where they are data."""
    before, whole = spelling.encoding(prompt), spelling.encoding(prompt + response)
    if whole.ids[: len(before.ids)] == before.ids:
        return list(whole.ids[len(before.ids) :])
    # The tokenizer joins the two texts at the seam, and the prompt's tokens are fixed: what the joint token holds of the response is cut
    # off it.
    seam = len(spelling.renamed(prompt))
    first = next((i for i, (start, _) in enumerate(whole.offsets) if start >= seam), len(whole.ids))
    until = whole.offsets[first][0] if first < len(whole.ids) else None
    return [*continued(spelling, spelling.renamed(prompt + response)[seam:until]), *whole.ids[first:]]


def continued(spelling: Spelling, text: str) -> list[int]:
    """The tokens of a piece of text within another; none of an empty one."""
    if not text:
        return []
    text = spelling.protect(text)
    for anchor in ANCHORS:
        before, whole = spelling.encode(anchor), spelling.encode(anchor + text)
        if whole[: len(before)] == before and len(whole) > len(before):
            return whole[len(before) :]
    return spelling.encode(text)


def _thought(response: str) -> list[str]:
    """The tags of the thought that a response begins with: the one that opens it and the one that closes it, as far as they are there."""
    tags = list(_tags(response))
    opening = [tag[0] for tag in tags[:1] if not tag["slash"] and not response[: tag.start()].strip()]
    closing = [tag[0] for tag in tags if tag["slash"]][-1:]
    return opening + closing


def _ends_thought(prompt: str) -> bool:
    *_, last = (None, *_tags(prompt))
    return last is not None and bool(last["slash"]) and not prompt[last.end() :].strip()


def _tags(text: str) -> Iterator[re.Match[str]]:
    return (tag for tag in TAG.finditer(text) if _is_thought(tag))


def _is_thought(tag: re.Match[str]) -> bool:
    return bool(opened_thought(tag[0].replace("/", "", 1)))
