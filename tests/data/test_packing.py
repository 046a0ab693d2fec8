"""Packed batches: nothing is lost or torn, and a batch depends on nothing but its number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpolya.data.packing import Example, PackedBatches, pack, plan_rows, token_example, unpack

ROW = 12


def make(lengths: list[int]) -> list[Example]:
    """Examples whose every token tells where it belongs: 100 × (example + 1) + place."""
    return [
        Example(
            tokens=np.array([100 * (index + 1) + place for place in range(length)], np.int32),
            weights=np.array([0] + [1] * (length - 1), np.float32),
            extras={"advantage": np.full(length, index / 8, np.float32)},
        )
        for index, length in enumerate(lengths)
    ]


def segments(batch: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The segments of a batch, row by row, checked to be laid out as promised."""
    pieces = []
    for row in range(len(batch["tokens"])):
        ids = batch["segment_ids"][row]
        count = ids.max()
        np.testing.assert_array_equal(ids, np.concatenate([np.sort(ids[ids > 0]), np.zeros((ids == 0).sum())]))  # 1, 2, …, then padding
        assert set(ids[ids > 0]) == set(range(1, count + 1))
        for values in batch.values():
            assert not values[row][ids == 0].any()
        pieces += [{name: values[row][ids == segment] for name, values in batch.items()} for segment in range(1, count + 1)]
    return pieces


lengths_of = st.lists(st.integers(1, ROW), min_size=1, max_size=40)


@given(lengths_of, st.integers(1, 5))
def test_packing_loses_and_tears_nothing(lengths, multiple):
    examples = make(lengths)
    batch = pack(examples, row_tokens=ROW, rows_multiple=multiple)
    assert {name: values.dtype for name, values in batch.items()} == {
        "tokens": np.int32, "segment_ids": np.int32, "positions": np.int32, "weights": np.float32, "advantage": np.float32,
    }  # fmt: skip
    assert all(values.shape == batch["tokens"].shape == (len(values), ROW) for values in batch.values())
    assert len(batch["tokens"]) % multiple == 0
    by_example = {segment["tokens"][0] // 100 - 1: segment for segment in segments(batch)}
    assert len(segments(batch)) == len(by_example) == len(examples)
    for index, example in enumerate(examples):
        np.testing.assert_array_equal(by_example[index]["tokens"], example.tokens)
        np.testing.assert_array_equal(by_example[index]["weights"], example.weights)
        np.testing.assert_array_equal(by_example[index]["advantage"], example.extras["advantage"])
        np.testing.assert_array_equal(by_example[index]["positions"], np.arange(len(example)))


@given(lengths_of)
def test_values_on_packed_rows_come_back_to_their_examples(lengths):
    examples = make(lengths)
    back = unpack(2.0 * pack(examples, row_tokens=ROW)["tokens"], examples)
    for example, values in zip(examples, back, strict=True):
        np.testing.assert_array_equal(values, 2.0 * example.tokens)


@given(lengths_of)
def test_no_two_rows_could_have_been_one(lengths):
    rows = plan_rows(lengths, ROW)
    filled = [sum(lengths[index] for index in row) for row in rows]
    # A row was opened only because its first example fitted nowhere.
    for later in range(1, len(rows)):
        assert all(filled[earlier] + lengths[rows[later][0]] > ROW for earlier in range(later))


@settings(max_examples=30, deadline=None)
@given(lengths_of, st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**40))
def test_every_epoch_holds_every_example_once_and_any_step_stands_alone(lengths, batch_rows, epochs, seed):
    examples = make(lengths)

    def fresh() -> PackedBatches:
        return PackedBatches(examples, row_tokens=ROW, batch_rows=batch_rows, epochs=epochs, seed=seed)

    batches = fresh()
    assert all(values.shape == (batch_rows, ROW) for values in batches.batch(0).values())
    seen = [int(segment["tokens"][0]) // 100 - 1 for step in range(batches.steps) for segment in segments(batches.batch(step))]
    for epoch in range(epochs):
        assert sorted(seen[epoch * len(examples) : (epoch + 1) * len(examples)]) == list(range(len(examples)))
    # A run that was cut off starts in the middle, in another process, and backwards if it likes.
    again = fresh()
    for step in reversed(range(batches.steps)):
        for name, values in again.batch(step).items():
            np.testing.assert_array_equal(values, batches.batch(step)[name])
    with pytest.raises(IndexError):
        batches.batch(batches.steps)


def test_a_stream_resumed_anywhere_equals_the_uninterrupted_one():
    examples = make([3, 5, 7, 2, 11, 4, 6, 9, 1, 8] * 3)
    batches = PackedBatches(examples, row_tokens=ROW, batch_rows=2, epochs=2, seed=3)
    whole = list(batches.stream())
    assert len(whole) == batches.steps > 10
    for start in (0, 7, batches.steps - 1, batches.steps):
        rest = list(batches.stream(start))
        assert len(rest) == batches.steps - start
        for expected, batch in zip(whole[start:], rest, strict=True):
            assert all((batch[name] == expected[name]).all() for name in expected)


def test_epochs_and_seeds_draw_their_own_order():
    examples = make([4] * 30)

    def order(seed: int, epochs: int = 1) -> list[int]:
        batches = PackedBatches(examples, row_tokens=ROW, batch_rows=10, epochs=epochs, seed=seed)
        return [int(segment["tokens"][0]) // 100 - 1 for step in range(batches.steps) for segment in segments(batches.batch(step))]

    two = order(0, epochs=2)
    assert two[:30] == order(0) != order(1)
    assert two[:30] != two[30:]
    assert two[:30] != sorted(two[:30])


@pytest.mark.parametrize("row_tokens", [512, 1024, 2048])
def test_rows_are_nearly_full_on_a_typical_mix(row_tokens):
    # Log-normal lengths with a median of 180 tokens, like short worked solutions.
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(180), 0.5, 3000), 10, 500).astype(int)
    batches = PackedBatches(make(list(lengths)), row_tokens=row_tokens, batch_rows=8, epochs=1)
    held = sum(int((batches.batch(step)["segment_ids"] > 0).sum()) for step in range(batches.steps))
    assert held == lengths.sum()
    assert batches.density == pytest.approx(held / (batches.steps * 8 * row_tokens))
    assert batches.density > 0.93


def test_what_a_prompt_and_its_response_become():
    example = token_example([5, 6, 7], [8, 9], logp_old=[-0.5, -0.25])
    assert example.tokens.tolist() == [5, 6, 7, 8, 9]
    assert example.weights.tolist() == [0, 0, 0, 1, 1]
    assert example.extras["logp_old"].tolist() == [0, 0, 0, -0.5, -0.25]
    assert (example.tokens.dtype, example.weights.dtype, example.extras["logp_old"].dtype) == (np.int32, np.float32, np.float32)


def test_refusals():
    with pytest.raises(ValueError, match="example 1 has 13 tokens, and a row only 12"):
        pack(make([3, 13]), row_tokens=ROW)
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([], row_tokens=ROW)
    with pytest.raises(ValueError, match="nothing to pack"):
        PackedBatches([], row_tokens=ROW, batch_rows=2)
    with pytest.raises(ValueError, match="prompt and a response"):
        token_example([], [1])
    with pytest.raises(ValueError, match="logp_old has shape"):
        token_example([1], [2, 3], logp_old=[0.0])
    with pytest.raises(ValueError, match="first token"):
        Example(tokens=np.array([1, 2]), weights=np.ones(2))
    with pytest.raises(ValueError, match="extras"):
        pack([token_example([1], [2]), token_example([1], [2], advantage=[1.0])], row_tokens=ROW)
