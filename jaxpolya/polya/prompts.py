"""The one prompt builder of generate, select, sft, rl and eval: only the heuristic and its exemplars differ.

A prompt asks a question (context, question, lettered choices, one line that says how to end). Under a slot the heuristic's
instruction stands right before the question that it is meant for, and the slot's exemplars come first, each an earlier
question of the same form with its worked answer.

- Chat: exemplars are earlier turns, because the template then marks where an example ends and who said what, and because an
  answer to imitate is best shown where the model's own answers stand. The instruction is in the last user turn and never in a
  system message: some templates refuse one, and the system message has to be the same with and without a heuristic.
- Plain text, for base models: the instruction, then `Question: … Answer: …` blocks. A base model goes on with another block
  after its answer; `stops` has the string that ends it there.

Exemplars end in the very format that the question asks for, so that what is shown never contradicts what is
asked. Questions are never truncated here; whoever encodes them knows the limits. What they spell is text, a control token's name too.

This module imports neither jax nor transformers; a tokenizer is whatever has the few methods of `hf.chat.Tokenizer`.
"""

import dataclasses
import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from jaxpolya.data.programs import TESTS
from jaxpolya.errors import ConfigError
from jaxpolya.hf.chat import REPLY, Tokenizer, chat_text, dialogue, template_of, turn_end_text, turn_ends
from jaxpolya.hf.spelling import Spelling
from jaxpolya.polya.catalogue import INSTRUCTION, Exemplar, ExemplarKind, Slot, letters, load_catalogue
from jaxpolya.records import Kind, Question
from jaxpolya.verify.kinds import is_own, verifier_of

KINDS: dict[Kind, ExemplarKind] = {"math": "math", "reasoning_gym": "math", "choice": "narrative", "code": "code"}
"""Verifier of a question → kind of the exemplars before it. Only narratives have lettered choices."""


def exemplar_kind(question: Question) -> ExemplarKind:
    """The kind of the exemplars before a question."""
    return verifier_of(question.verifier).exemplars if is_own(question.verifier) else KINDS[cast(Kind, question.verifier)]


@dataclasses.dataclass(frozen=True)
class Built:
    """A prompt as a person reads it, and as tokens."""

    text: str
    ids: tuple[int, ...]


class PromptBuilder:
    """Builds prompts for one tokenizer.

    Args:
        tokenizer: its chat template is used where there is one and `chat` allows it.
        chat: `auto` (a template if there is one), `always` (`ConfigError` without a template), `never` (plain text).
        system: system message of the template; None leaves it to the template, plain text has none.
        chat_arguments: of the template, by name; `ConfigError` for one that it doesn't have.
        frame: the four-phase frame, `Catalogue.frame`; None takes the built-in one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        chat: Literal["auto", "always", "never"] = "auto",
        system: str | None = None,
        chat_arguments: Mapping[str, Any] | None = None,
        frame: str | None = None,
    ):
        if chat == "always" and not tokenizer.chat_template:
            raise ConfigError("model.chat is always, but the model's tokenizer has no chat template; use auto or never")
        self.chat = bool(tokenizer.chat_template) and chat != "never"
        self._tokenizer, self._system, self._frame = tokenizer, system, frame or load_catalogue().frame
        self._arguments = dict(chat_arguments or {})
        self._check_arguments()
        self.spelling = Spelling(tokenizer, self._arguments)
        stop = turn_end_text(tokenizer, self._arguments, system) if self.chat else "\nQuestion:"
        self.stops: tuple[str, ...] = (stop,) if stop else ()
        """Strings that end a response: what opens the next turn, where no token does."""
        # A template writes its own special tokens. Plain text gets the BOS that the tokenizer would add, and no EOS that it might.
        opening = [] if self.chat else tokenizer.encode("a", add_special_tokens=True)[:1]
        self._bos = opening if opening == [tokenizer.bos_token_id] else []

    def build(self, question: Question, slot: Slot | None = None, *, four_phases: bool = False, exemplars: bool = True) -> Built:
        """The whole prompt: of the bare question without a slot, else under the slot's heuristic.

        `four_phases` puts the frame around the heuristic's instruction. `exemplars=False` leaves the slot's exemplars out.
        Raises `ConfigError` where the template refuses the system message.
        """
        text = self.protected(question, slot, four_phases=four_phases, exemplars=exemplars)
        return Built(self.spelling.plain(text), tuple(self.encode(text)))

    def text(self, question: Question, slot: Slot | None = None, *, four_phases: bool = False, exemplars: bool = True) -> str:
        """The text of what `build` gives."""
        return self.spelling.plain(self.protected(question, slot, four_phases=four_phases, exemplars=exemplars))

    def protected(self, question: Question, slot: Slot | None = None, *, four_phases: bool = False, exemplars: bool = True) -> str:
        """The same with what data spells protected (`hf.spelling`)."""
        instruction = self._instruction(slot, four_phases) if slot else ""
        asked = ask(question)
        shots = [(ask(_as_question(shot, question)), worked(shot, question)) for shot in slot.exemplars] if slot and exemplars else []
        if self.chat:
            return self._conversation(shots, self.message(question, slot, four_phases=four_phases))
        blocks = [f"Question: {shot}\nAnswer: {answer}" for shot, answer in shots]
        return self.spelling.protect(_paragraphs(instruction, *blocks, f"Question: {asked}\nAnswer:"))

    def message(self, question: Question, slot: Slot | None = None, *, four_phases: bool = False) -> str:
        """What the user says last: the heuristic's instruction, if there is a slot, and the question."""
        return _paragraphs(self._instruction(slot, four_phases) if slot else "", ask(question))

    def say(self, message: str, answer: str = "") -> list[int]:
        """Token ids of a whole prompt, and the beginning of its answer, of a message that is no question of a data set.

        Nothing is added on how to end.
        """
        prompt = self._conversation([], message) if self.chat else self.spelling.protect(f"Question: {message}\nAnswer:")
        return self.encode(prompt + self.spelling.protect(answer))

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt's text, with one BOS where the template or (for plain text) the tokenizer has one.

        Control tokens that the text spells are meant, but for those that are protected.
        """
        ids = self.spelling.encode(text)
        return ids if ids[:1] == self._bos else self._bos + ids

    @functools.cached_property
    def lead(self) -> str:
        """The white space between a prompt and its answer: some templates write a blank there."""
        if not self.chat:
            return " "
        try:
            shown = dialogue(system=self._system)
            text = chat_text(self._tokenizer, shown, add_generation_prompt=False, arguments=self._arguments)
            prompt = chat_text(self._tokenizer, shown[:-1], arguments=self._arguments)
        except Exception:  # as in `hf.chat`
            return ""
        lead = text.removeprefix(prompt).partition(REPLY)[0] if text.startswith(prompt) else ""
        return lead if lead.isspace() else ""

    @functools.cached_property
    def _ends(self) -> tuple[int, ...]:
        return turn_ends(self._tokenizer, self._arguments, self._system) if self.chat else ()

    def stop_ids(self, named: Sequence[int]) -> tuple[int, ...]:
        """The ids that a checkpoint names, and those that its template ends a message with when it is asked as this builder asks."""
        return tuple(dict.fromkeys((*named, *self._ends)))

    def end_id(self, stop_ids: Sequence[int]) -> int:
        """The id among `stop_ids` that a response is taught to end with: the one that the template writes after a message (Gemma's
        end of turn, say), else the tokenizer's own end of text, else the first.
        """
        return next((i for i in (*self._ends, self._tokenizer.eos_token_id) if i is not None and i in stop_ids), stop_ids[0])

    def check_answers(self) -> None:
        """Raises `ConfigError` where the template refuses a conversation that ends with an answer: no model could be taught one."""
        if self.chat:
            self._render(dialogue(system=self._system), add_generation_prompt=False)

    def _check_arguments(self) -> None:
        if self._arguments and not self.chat:
            raise ConfigError("model.chat_arguments are for a chat template, and prompts are plain text here; leave them away")
        template = str(template_of(self._tokenizer))
        for name in self._arguments:
            if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", template):
                close = difflib.get_close_matches(name, sorted(set(re.findall(r"[A-Za-z_]\w+", template))), n=1)
                raise ConfigError(
                    f"model.chat_arguments: the model's chat template has no {name}{f'; did you mean {close[0]}?' if close else ''}"
                )

    def _instruction(self, slot: Slot, four_phases: bool) -> str:
        instruction = slot.heuristic.instruction
        if four_phases and slot.heuristic.key != "four_phases":
            instruction = self._frame.replace(INSTRUCTION, instruction)
        return instruction

    def _conversation(self, shots: Sequence[tuple[str, str]], last: str) -> str:
        messages = [{"role": "system", "content": self._system}] if self._system is not None else []
        for user, assistant in shots:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        messages.append({"role": "user", "content": last})
        return self._render([message | {"content": self.spelling.protect(message["content"])} for message in messages])

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        try:
            return chat_text(self._tokenizer, messages, add_generation_prompt=add_generation_prompt, arguments=self._arguments)
        except Exception as error:  # a template is a program: a wrong argument may be any error in it
            what = "the prompt" if add_generation_prompt else "a conversation that ends with an answer, as fine-tuning teaches it"
            hint = "; leave model.system unset, or set model.chat to never" if self._system is not None else "; set model.chat to never"
            given = f"; look at model.chat_arguments ({', '.join(self._arguments)})" if self._arguments else hint
            raise ConfigError(f"the model's chat template refuses {what} ({error}){given}") from error


def ask(question: Question) -> str:
    """A question with its context, its lettered choices, and one line on how to end."""
    choices = [f"{letter}. {choice}" for letter, choice in zip(letters(26), question.choices or [], strict=False)]
    body = "\n".join([question.question, *choices, *_example(question), _ending(question)])
    return _paragraphs(question.context or "", body)


def worked(exemplar: Exemplar, question: Question) -> str:
    """An exemplar's response with its final statement, in the format that `question` asks for."""
    answer = exemplar.answer
    if is_own(question.verifier) and (stated := verifier_of(question.verifier).statement(question, answer)) is not None:
        return f"{exemplar.response}\n{stated}"
    match _format(question):
        case "code":
            return exemplar.response
        case "boxed":
            return f"{exemplar.response}\nThe answer is \\boxed{{{answer}}}."
        case "tag":
            return f"{exemplar.response}\n<answer>{answer}</answer>"
        case _:
            return f"{exemplar.response}\nThe answer is {answer}."


def _example(question: Question) -> list[str]:
    """The first of a code question's assertions, if that is what its tests are: nothing else may say what the function is called."""
    tests = question.tests if question.verifier == "code" else None
    given = next((tests[name] for name in TESTS if name in tests), None) if isinstance(tests, dict) and "prompt" not in tests else tests
    return [f"It must pass this test: {given[0]}"] if isinstance(given, list) and isinstance(given[0], str) else []


def _ending(question: Question) -> str:
    """The line on how to end. It has no placeholder: small models copy "The answer is X." to the letter."""
    if is_own(question.verifier) and (asked := verifier_of(question.verifier).ending(question)) is not None:
        return asked
    what = "the letter of your choice" if question.verifier == "choice" else "the final answer"
    match _format(question):
        case "code":
            return "Write the whole program in one ```python block."
        case "boxed":
            return f"Put {what} in \\boxed{{}}."
        case "tag":
            return f"Put {what} between <answer> and </answer>."
        case _:
            return f'End with "The answer is" and {what}.'


def _format(question: Question) -> Literal["code", "boxed", "tag", "statement"]:
    """How a response to this question ends. Every extraction but `tag` reads a box, and mathematics is safest in one."""
    match question.verifier, question.extraction:
        case "code", _:
            return "code"
        case _, "tag":
            return "tag"
        case (_, "boxed") | ("math", "statement"):
            return "boxed"
        case _:
            return "statement"


def _as_question(exemplar: Exemplar, question: Question) -> Question:
    """An exemplar as a question that is asked like `question`."""
    return Question(
        id="exemplar",
        question=exemplar.question,
        answer=exemplar.answer,
        choices=exemplar.choices,
        verifier=question.verifier,
        extraction=question.extraction,
    )


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
