"""What fine-tuning makes of selected rows."""

import pytest

from jaxpolya.errors import InputError
from jaxpolya.records import SftRow
from jaxpolya.train.sft import sft_examples


def row(prompt, response) -> SftRow:
    return SftRow(question_id="q", prompt="p", response="r", prompt_ids=prompt, token_ids=response)


def test_a_row_s_own_tokens_are_learned_and_long_rows_are_counted():
    (example,), too_long = sft_examples([row([5, 6], [7, 0]), row([5] * 9, [7, 0])], longest=10)
    assert example.tokens.tolist() == [5, 6, 7, 0] and example.weights.tolist() == [0, 0, 1, 1] and too_long == 1


@pytest.mark.parametrize("old", [row(None, None), row([5], None), row(None, [7])])
def test_rows_of_before_are_refused(old):
    for use in (lambda one: one.length, lambda one: sft_examples([one], 10)):
        with pytest.raises(InputError, match="row of question q has no prompt_ids or token_ids, as an older jaxpolya wrote them; delete"):
            use(old)
