"""What is said, what is only thought, and where a turn ends."""

import pytest
from growth import assert_linear

from jaxpolya.verify.speech import opened_thought, spoken

OPEN_AND_CLOSED = [
    ("<think>", "</think>"), ("<Think>", "</THINK>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"), ("<inner_thoughts>", "</inner_thoughts>"), ("<|startofthink|>", "<|endofthink|>"), ("<cot>", "</cot>"),
    ("<thought>", "</thought>"), ("<scratchpad id='1'>", "</scratchpad>"), ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"), ("<|channel>thought\n", "<channel|>"),
    ("<|im_start|>think\n", "<|im_start|>answer\n"), ("<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>"),
]  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), OPEN_AND_CLOSED)
def test_a_thought_is_not_said(opening, closing):
    assert spoken(f"{opening}perhaps 7{closing}It is 8.") == "It is 8."
    assert spoken(f"{opening}perhaps 7") == ""
    assert spoken(f"{opening}perhaps 7 {opening}or 9") == ""
    prompt = f"<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n{opening}\n"
    assert opened_thought(prompt).strip() == opening.strip()
    assert spoken(opened_thought(prompt) + "perhaps 7") == ""
    assert spoken(opened_thought(prompt) + f"perhaps 7{closing}\nIt is 8.") == "It is 8."
    assert opened_thought(f"{prompt}perhaps 7{closing}\n") == ""
    assert opened_thought(f"{prompt}perhaps") == ""


@pytest.mark.parametrize(
    ("response", "speech"),
    [
        ("<think>a<think>b</think>It is 8.", ""),
        ("<think>\n<think>\na</think>It is 8.", "It is 8."),
        ("<think>a<think>b</think>c</think>It is 8.", "It is 8."),
        ("<think>the tag <reasoning> is asked for</think>It is 8.", "It is 8."),
        ("<think>a<reasoning>b</reasoning>It is 8.", ""),
        ("<think>a</reasoning>It is 8.", ""),
        ("<think>a[/THINK]It is 8.", "It is 8."),
        ("a</think>b</think>It is 8.", "It is 8."),
        ("It is 7.</reasoning>It is 8.", "It is 8."),
        ("It is 8.<think>or 9", "It is 8."),
        ("It is 8.<think>or 9</think>Yes.", "It is 8.\nYes."),
        ("1<think>a</think>2", "1\n2"),
        ("<think>a<|im_end|></think>It is 8.", ""),
        ("<think>a<|tool_sep|>b</think>It is 8.", "It is 8."),
        ("<think>a<|im_start|>assistant\nIt is 8.", ""),
        ("<|channel|>analysis<|message|>a<|return|>It is 8.", ""),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>It is 8.", ""),
        ("<|channel|>analysis<|message|>a<|channel|>final<|message|>It is 8.<|return|>", "It is 8."),
        ("The tag <b>bold</b> and [think about it] are text.", "The tag <b>bold</b> and [think about it] are text."),
        ("a <think b", "a <think b"),
    ],
)
def test_thoughts_in_thoughts_and_other_oddities(response, speech):
    assert spoken(response) == speech


@pytest.mark.parametrize(
    ("response", "speech"),
    [
        ("It is 8.<|im_end|>It is 9.", "It is 8."),
        ("It is 8.</s>It is 9.", "It is 8."),
        ("It is 8.<｜end▁of▁sentence｜>It is 9.", "It is 8."),
        ("It is 8.<|reserved_special_token_7|>It is 9.", "It is 8."),
        ("It is 8.<|im_end|>\n<|im_start|>assistant\nIt is 9.", "It is 8."),
        ("It is 8.<|im_start|>assistant\nIt is 9.", "It is 8."),
        ("It is 8.<start_of_turn>user\nIs it 9?", "It is 8."),
        ("<|im_end|>It is 8.", ""),
        ("<|im_start|>user\nIt is 8.", ""),
        ("<|im_start|>assistant\nIt is 8.<|im_end|>", "It is 8."),
        ("<|begin_of_text|><|start_header_id|>assistant<|end_header_id|>\n\nIt is 8.<|eot_id|>", "It is 8."),
        ("<bos><start_of_turn>model\nIt is 8.<end_of_turn>", "It is 8."),
        ("<｜begin▁of▁sentence｜><｜Assistant｜>It is 8.", "It is 8."),
        ("<|im_start|>assistant\n<think>a</think>\nIt is 8.", "It is 8."),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>It is 8.<|end_of_solution|>", "It is 8."),
    ],
)
def test_a_turn_begins_and_ends(response, speech):
    assert spoken(response) == speech


@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<think>a", "<think>a<reasoning>b", "<think>a</reasoning>", "<", "<a", "<|", "[think", "<|im_start|>",
     "<|im_start|>assistant ", "<|channel|>analysis a", "<|start|>a <|constrain|>", "◁", "<s>", "</s", "<a b", "<think>a</think>", " "],
)  # fmt: skip
def test_time_is_linear(piece):
    for read in (spoken, opened_thought):
        assert_linear(lambda size, read=read: read(piece * (size // len(piece))), 60_000, read)
