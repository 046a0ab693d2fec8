"""Rows in which the responses to a prompt share it, so that it is computed once a row and not once a response.

A group is a prompt with its responses. In a row lies a part of it:

    tokens     all of the prompt but its last | that last token, a response | that last token, another response | …
    segment    0                              | 1                           | 2
    group      1 in all of it
    position   0 … n − 2                      | n − 1, n, …                 | n − 1, n, …

A token sees earlier tokens of its own segment and, within its group, of segment 0 (`models.attention`). The prompt's last token is there
once for each response, since a response's first token is predicted from it: every token that is learned from stands behind the one that
predicts it, as in plain rows, and losses, values and log-probs need to know nothing of sharing. To them segment 0 is no sequence, as
padding is none.

A group that doesn't fit into one row lies in several, its prompt in each. There are never more tokens than in plain rows: G responses
to a prompt of n tokens save (G − 1) · (n − 1) of them in one row. Plans follow from lengths alone, as those of plain rows do.
"""

import bisect
import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from jaxpolya.data.packing import Batch, Example, pack, unpack


@dataclasses.dataclass(frozen=True)
class Part:
    """What of a group lies in a row."""

    group: int
    members: tuple[int, ...]
    """Places of responses within the group."""


def plan_parts(groups: Sequence[tuple[int, Sequence[int]]], row_tokens: int) -> list[list[Part]]:
    """Which parts of groups share a row: per row, in the order in which rows were opened, its parts.

    What is left of a group goes to the fullest open row that takes all of it, else as much as fits to the emptiest one, else it opens one;
    long responses first, which leaves fewer gaps and changes nothing else: an update sums over all rows.

    Args:
      groups: of each the tokens of its prompt, and those of its responses.
      row_tokens: T.

    Raises `ValueError` for a response that is longer than `row_tokens` with its prompt.
    """
    rows: list[list[Part]] = []
    space: list[tuple[int, int]] = []  # (free tokens, row) of the open rows, sorted
    for group, (prompt, responses) in enumerate(groups):
        if (longest := prompt + max(responses)) > row_tokens:
            raise ValueError(f"a response of group {group} has {longest} tokens with its prompt, and a row only {row_tokens}")
        left = sorted(range(len(responses)), key=lambda i: -responses[i])
        while left:
            fit = bisect.bisect_left(space, (prompt - 1 + sum(1 + responses[i] for i in left), 0))
            if fit < len(space):
                free, row = space.pop(fit)
            elif space and space[-1][0] >= prompt + min(responses[i] for i in left):
                free, row = space.pop()
            else:
                free, row = row_tokens, len(rows)
                rows.append([])
            free, taken = free - (prompt - 1), []
            for i in left:
                if 1 + responses[i] <= free:
                    free -= 1 + responses[i]
                    taken.append(i)
            rows[row].append(Part(group, tuple(taken)))
            left = [i for i in left if i not in taken]
            if free:
                bisect.insort(space, (free, row))
    return rows


def pack_groups(examples: Sequence[Example], size: int, *, row_tokens: int, rows_multiple: int = 1) -> Batch:
    """Groups in few rows, padded by empty rows to a multiple of `rows_multiple`.

    Arrays [R, T] as in `packing.fill_rows`, laid out as above, and `group_ids` int32, 1, 2, … within a row and 0 on padding. Extras of
    prompts' tokens are left out.

    Args:
      examples: group by group.
      size: G, of a group; its examples have one prompt.
      row_tokens: T.
      rows_multiple: of which R is one.

    Raises `ValueError` where that isn't so, for no examples, or for one longer than `row_tokens`.
    """
    if not examples or len(examples) % size:
        raise ValueError(f"{len(examples)} examples are no groups of {size}")
    extras, rows = set(examples[0].extras), _plan(examples, size, row_tokens)
    shape = (-(-len(rows) // rows_multiple) * rows_multiple, row_tokens)
    batch: Batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "segment_ids", "positions", "group_ids")}
    batch |= {name: np.zeros(shape, np.float32) for name in ("weights", *sorted(extras))}
    for row, parts in enumerate(rows):
        end = segment = 0
        for number, part in enumerate(parts, 1):
            first = examples[part.group * size]
            shared = slice(end, end + first.prompt - 1)
            batch["tokens"][row, shared] = first.tokens[: first.prompt - 1]
            batch["positions"][row, shared] = np.arange(first.prompt - 1)
            end = shared.stop
            for member in part.members:
                example = examples[part.group * size + member]
                if set(example.extras) != extras or not np.array_equal(example.tokens[: example.prompt], first.tokens[: first.prompt]):
                    raise ValueError(f"example {part.group * size + member} has another prompt than its group's, or other extras")
                segment, own = segment + 1, slice(example.prompt - 1, None)
                span = slice(end, end + len(example) - own.start)
                batch["tokens"][row, span] = example.tokens[own]
                batch["segment_ids"][row, span] = segment
                batch["positions"][row, span] = np.arange(own.start, len(example))
                batch["weights"][row, span] = example.weights[own]
                for name, values in example.extras.items():
                    batch[name][row, span] = values[own]
                end = span.stop
            batch["group_ids"][row, shared.start : end] = number
    return batch


def unpack_groups(values_RT: np.ndarray, examples: Sequence[Example], size: int) -> list[np.ndarray]:
    """Values computed on the rows that `pack_groups` made of these examples, back per response: [m] each, in the examples' order."""
    by_example: dict[int, np.ndarray] = {}
    for row, parts in enumerate(_plan(examples, size, values_RT.shape[1])):
        end = 0
        for part in parts:
            end += examples[part.group * size].prompt - 1
            for member in part.members:
                index = part.group * size + member
                start, end = end + 1, end + 1 + len(examples[index]) - examples[index].prompt
                by_example[index] = values_RT[row, start:end]
    return [by_example[index] for index in range(len(examples))]


def pack_rows(examples: Sequence[Example], group: int | None, *, row_tokens: int, rows_multiple: int = 1) -> Batch:
    """Rows of `pack_groups` where `group` examples share a prompt, of `packing.pack` where it is None and each stands by itself."""
    if group is None:
        return pack(examples, row_tokens=row_tokens, rows_multiple=rows_multiple)
    return pack_groups(examples, group, row_tokens=row_tokens, rows_multiple=rows_multiple)


def unpack_rows(values_RT: np.ndarray, examples: Sequence[Example], group: int | None) -> list[np.ndarray]:
    """Values on the rows of `pack_rows`, back per example: [n] each, 0 on a prompt that is shared."""
    if group is None:
        return unpack(values_RT, examples)
    responses = unpack_groups(values_RT, examples, group)
    return [np.pad(values, (example.prompt, 0)) for example, values in zip(examples, responses, strict=True)]


def common_tokens(texts: Collection[tuple[int, ...]] | Collection[list[int]]) -> int:
    """How many leading tokens all texts have in common: as many as the first and the last of them in order."""
    first, last = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _plan(examples: Sequence[Example], size: int, row_tokens: int) -> list[list[Part]]:
    groups = [examples[first : first + size] for first in range(0, len(examples), size)]
    return plan_parts([(group[0].prompt, [len(example) - example.prompt for example in group]) for group in groups], row_tokens)
