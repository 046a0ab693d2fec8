"""Sequences of many lengths as device batches of one shape, for SFT, RL and scoring alike.

Several examples lie end to end in a row of T tokens, told apart by segment ids; attention stays inside a segment and positions
start anew in each. One compiled shape then serves every length, and little of a batch is padding.

Rows are planned by best fit over the *lengths* alone: an example goes to the fullest open row that still takes it, else opens
a row. In shuffled order that fills 90–99 % of the tokens (sorting by length first would fill a little more, and make a batch's
make-up depend on length). A plan of plain integers buys what a resumable run needs: the number of steps is known before the
first one (the learning-rate schedule asks), any batch can be made by its number, so that resuming needs no data state and
repeats the same bits on every host, and values computed on packed rows find their way back (`unpack`).

grain orders the epochs (`MapDataset.shuffle().repeat()` is a random-access permutation, drawn anew each epoch) and prefetches
batches. Its own packers (`grain.experimental.FirstFitPackIterDataset` and its kin) were looked at and not used: they are iterators, whose
position is a state to checkpoint, don't say how many batches will come, and pack on over the end of an epoch.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One sequence. All arrays are [n] and aligned to the token they belong to: entry t is about predicting token t, given those before.

    `tokens` int32; `weights` float32, what the token counts in the loss (0 for prompt tokens; the first token has nothing before
    it that could predict it, so its weight is 0); `extras` float32, such as `logp_old` or `advantage`; `prompt`, how many of the
    first tokens are the prompt, which `data.sharing` asks. Raises `ValueError` on other shapes.
    """

    tokens: np.ndarray
    weights: np.ndarray
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    prompt: int = 1

    def __post_init__(self) -> None:
        if self.tokens.ndim != 1 or not len(self.tokens):
            raise ValueError(f"an example is one row of at least one token, not of shape {self.tokens.shape}")
        for name, values in {"weights": self.weights, **self.extras}.items():
            if values.shape != self.tokens.shape:
                raise ValueError(f"{name} has shape {values.shape}, and the tokens {self.tokens.shape}")
        if self.weights[: max(1, self.prompt)].any():
            raise ValueError("a prompt isn't learned from, and its first token can't be predicted from anything: their weights must be 0")

    def __len__(self) -> int:
        return len(self.tokens)


def token_example(prompt_ids: Sequence[int], response_ids: Sequence[int], **extras: Sequence[float] | np.ndarray) -> Example:
    """A prompt and its response, stop token included, where each response token counts 1 and no prompt token counts.

    `extras` hold a value per response token; prompt tokens get 0. Raises `ValueError` for an empty prompt or response.
    """
    if not len(prompt_ids) or not len(response_ids):
        raise ValueError("an example needs a prompt and a response of at least one token each")

    def aligned(values: Sequence[float] | np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(len(prompt_ids), np.float32), np.asarray(values, np.float32)])

    return Example(
        tokens=np.asarray([*prompt_ids, *response_ids], np.int32),
        weights=aligned(np.ones(len(response_ids))),
        extras={name: aligned(values) for name, values in extras.items()},
        prompt=len(prompt_ids),
    )


def plan_rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Which examples share a row: per row, in the order in which rows were opened, the examples' indices in the order given.

    Best fit, O(n log n) comparisons. Raises `ValueError` for an example longer than `row_tokens`: leaving it out is the caller's
    decision.
    """
    rows: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (free tokens, row) of the open rows, sorted
    for index, length in enumerate(lengths):
        if length > row_tokens:
            raise ValueError(f"example {index} has {length} tokens, and a row only {row_tokens}")
        fit = bisect.bisect_left(space, (length, 0))
        if fit < len(space):
            free, row = space.pop(fit)
        else:
            free, row = row_tokens, len(rows)
            rows.append([])
        rows[row].append(index)
        if free > length:
            bisect.insort(space, (free - length, row))
    return rows


def fill_rows(examples: Sequence[Example], rows: Sequence[Sequence[int]], *, row_tokens: int, row_count: int) -> Batch:
    """The planned rows as arrays [R, T], with R = `row_count` ≥ len(rows) (the rest is padding) and T = `row_tokens`.

    `tokens` int32; `segment_ids` int32, 1, 2, … within a row and 0 on padding; `positions` int32, from 0 within each segment;
    `weights` and every extra float32. Padding is 0 everywhere. Raises `ValueError` if the examples' extras differ in name.
    """
    extras = set(examples[0].extras) if examples else set()
    shape = (row_count, row_tokens)
    batch: Batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "segment_ids", "positions")}
    batch |= {name: np.zeros(shape, np.float32) for name in ("weights", *sorted(extras))}
    for row, members in enumerate(rows):
        start = 0
        for segment, index in enumerate(members, 1):
            example = examples[index]
            if set(example.extras) != extras:
                raise ValueError(f"example {index} has the extras {sorted(example.extras)}, and the first one {sorted(extras)}")
            span = slice(start, start + len(example))
            batch["tokens"][row, span] = example.tokens
            batch["segment_ids"][row, span] = segment
            batch["positions"][row, span] = np.arange(len(example))
            batch["weights"][row, span] = example.weights
            for name, values in example.extras.items():
                batch[name][row, span] = values
            start = span.stop
    return batch


def pack(examples: Sequence[Example], *, row_tokens: int, rows_multiple: int = 1) -> Batch:
    """All examples in as few rows as best fit finds, padded by empty rows to a multiple of `rows_multiple`.

    Arrays [R, T] as in `fill_rows`. Raises `ValueError` for no examples, or one longer than `row_tokens`.
    """
    if not examples:
        raise ValueError("there is nothing to pack")
    rows = plan_rows([len(example) for example in examples], row_tokens)
    return fill_rows(examples, rows, row_tokens=row_tokens, row_count=-(-len(rows) // rows_multiple) * rows_multiple)


def unpack(values_RT: np.ndarray, examples: Sequence[Example]) -> list[np.ndarray]:
    """Values computed on the rows that `pack` made of these examples, back per example: [n] each, in the examples' order."""
    by_example: dict[int, np.ndarray] = {}
    for row, members in enumerate(plan_rows([len(example) for example in examples], values_RT.shape[1])):
        start = 0
        for index in members:
            end = start + len(examples[index])
            by_example[index] = values_RT[row, start:end]
            start = end
    return [by_example[index] for index in range(len(examples))]


class PackedBatches:
    """A fixed sequence of packed batches over some epochs, each batch a function of its step number.

    Every example appears once an epoch, in an order drawn from `seed` for each epoch. The last batch of an epoch is filled up
    with empty rows. Examples must not be changed while this is in use.
    """

    def __init__(self, examples: Sequence[Example], *, row_tokens: int, batch_rows: int, epochs: int = 1, seed: int = 0):
        """Plans all epochs. Raises `ValueError` for no examples, or one longer than `row_tokens`."""
        if not examples:
            raise ValueError("there is nothing to pack")
        self._examples, self._row_tokens, self._batch_rows = examples, row_tokens, batch_rows
        order = grain.MapDataset.range(len(examples)).seed(seed).shuffle().repeat(epochs)
        self._plan: list[list[list[int]]] = []  # step → row → indices of its examples
        for epoch in range(epochs):
            drawn = [int(order[epoch * len(examples) + i]) for i in range(len(examples))]
            rows = [[drawn[i] for i in row] for row in plan_rows([len(examples[index]) for index in drawn], row_tokens)]
            self._plan += [rows[first : first + batch_rows] for first in range(0, len(rows), batch_rows)]
        self.density = epochs * sum(map(len, examples)) / (self.steps * batch_rows * row_tokens)
        """Share of all batches' tokens that are not padding."""

    @property
    def steps(self) -> int:
        """Number of batches in all epochs."""
        return len(self._plan)

    def batch(self, step: int) -> Batch:
        """Batch `step`, 0 ≤ step < `steps`: arrays [B, T] as in `fill_rows`, with B = `batch_rows`."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of {self.steps}")
        return fill_rows(self._examples, self._plan[step], row_tokens=self._row_tokens, row_count=self._batch_rows)

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """The batches from step `start` on, made ahead of use by threads."""
        ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        return iter(grain.MapDataset.range(start, self.steps).map(self.batch).to_iter_dataset(ahead))
