"""Rows with shared prompts: every response is there once with its prompt before it, and comes back."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpolya.data.packing import pack, token_example
from jaxpolya.data.sharing import pack_groups, plan_parts, unpack_groups

ROW, SIZE = 16, 3


def make(groups):
    """Groups of SIZE by the lengths of prompt and responses; each token tells where it belongs."""
    made = []
    for group, (n, responses) in enumerate(groups):
        prompt = [1000 * (group + 1) + place for place in range(n)]
        for member, m in enumerate(responses):
            response = [1000 * (group + 1) + 100 * (member + 1) + place for place in range(m)]
            made.append(token_example(prompt, response, advantage=np.arange(m) / 8 + member))
    return made


groups_of = st.lists(st.tuples(st.integers(1, 8), st.lists(st.integers(1, 8), min_size=SIZE, max_size=SIZE)), min_size=1, max_size=8)


def sequences(batch):
    """What each response's last token sees, as a model does: {tokens: what else stands there}."""
    found = {}
    for row in range(len(batch["tokens"])):
        of = {name: values[row] for name, values in batch.items()}
        for segment in range(1, of["segment_ids"].max() + 1):
            (own,) = np.nonzero(of["segment_ids"] == segment)
            seen = (of["segment_ids"] == segment) | (of["segment_ids"] == 0)
            seen &= (of["group_ids"] == of["group_ids"][own[-1]]) & (np.arange(ROW) <= own[-1])
            found[tuple(of["tokens"][seen].tolist())] = {name: values[seen] for name, values in of.items()}
    return found


@given(groups_of, st.integers(1, 4))
def test_each_response_is_there_once_behind_its_prompt(groups, multiple):
    examples = make(groups)
    batch = pack_groups(examples, SIZE, row_tokens=ROW, rows_multiple=multiple)
    plain = pack(examples, row_tokens=ROW)
    assert {name: values.dtype for name, values in batch.items()} == {
        name: values.dtype for name, values in plain.items()
    } | {"group_ids": np.int32}  # fmt: skip
    assert all(values.shape == batch["tokens"].shape and len(values) % multiple == 0 for values in batch.values())
    found = sequences(batch)
    assert len(found) == len(examples) == sum(row.max() for row in batch["segment_ids"])
    for example in examples:
        there = found[tuple(example.tokens.tolist())]
        np.testing.assert_array_equal(there["positions"], np.arange(len(example)))
        np.testing.assert_array_equal(there["weights"], example.weights)
        np.testing.assert_array_equal(there["advantage"], example.extras["advantage"])
    padding = batch["group_ids"] == 0
    assert not any(values[padding].any() for values in batch.values())
    assert (~padding).sum() <= (plain["segment_ids"] > 0).sum()
    assert batch["weights"].sum() == plain["weights"].sum()
    for row in range(len(batch["tokens"])):  # 1, 2, … along the row, as losses count sequences
        ids = batch["segment_ids"][row]
        assert set(ids[ids > 0]) == set(range(1, ids.max() + 1)) and (np.diff(ids[ids > 0]) >= 0).all()


@given(groups_of)
def test_values_come_back_to_their_responses(groups):
    examples = make(groups)
    back = unpack_groups(2.0 * pack_groups(examples, SIZE, row_tokens=ROW)["tokens"], examples, SIZE)
    for example, values in zip(examples, back, strict=True):
        np.testing.assert_array_equal(values, 2.0 * example.tokens[example.prompt :])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 6))
def test_a_prompt_is_there_as_often_as_its_group_has_rows(prompt, responses, count):
    rows = plan_parts([(prompt, responses)] * count, 100)
    for parts in rows:
        assert sum(prompt - 1 + sum(1 + responses[i] for i in part.members) for part in parts) <= 100
        assert len({part.group for part in parts}) == len(parts) and all(part.members for part in parts)
    for group in range(count):
        placed = [i for parts in rows for part in parts if part.group == group for i in part.members]
        assert sorted(placed) == list(range(len(responses)))


def test_what_is_saved_where_prompts_are_twice_as_long_as_responses():
    examples = make([(8, [4, 4, 4])] * 8)
    assert len(pack(examples, row_tokens=24)["tokens"]) == 12
    assert len(pack_groups(examples, SIZE, row_tokens=24)["tokens"]) == 8
    assert len(pack_groups(examples, SIZE, row_tokens=22)["tokens"]) == 8, "just a group"


def test_refusals():
    examples = make([(2, [3, 3, 3])])
    with pytest.raises(ValueError, match="2 examples are no groups of 3"):
        pack_groups(examples[:2], SIZE, row_tokens=ROW)
    with pytest.raises(ValueError, match="a response of group 0 has 5 tokens with its prompt, and a row only 4"):
        pack_groups(examples, SIZE, row_tokens=4)
    with pytest.raises(ValueError, match="example 2 has another prompt than its group's"):
        pack_groups([*examples[:2], token_example([1, 2], [3], advantage=[0.0])], SIZE, row_tokens=ROW)
    with pytest.raises(ValueError, match="or other extras"):
        pack_groups([*examples[:2], dataclasses.replace(examples[2], extras={})], SIZE, row_tokens=ROW)
    with pytest.raises(ValueError, match="a prompt isn't learned from"):
        dataclasses.replace(examples[0], weights=np.ones_like(examples[0].weights))
