import dataclasses

import pytest

from jaxpolya.models.config import DecoderConfig, LayerKind, Rope, RopeScaling

CONFIG = DecoderConfig("llama", 32, 16, 16, 6, 4, 2, 8, 64)
NEAR, FAR = LayerKind(window=8), LayerKind()


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 64),
        (RopeScaling("linear", 4.0), 256),
        (RopeScaling("yarn", 4.0, original_max_positions=64), 256),
        (RopeScaling("yarn", 2.0, original_max_positions=16), 64),  # the configuration says the stretched length
        (RopeScaling("llama3", 8.0, original_max_positions=8), 64),
    ],
)
def test_the_context_is_what_stretched_frequencies_reach(scaling, context):
    assert dataclasses.replace(CONFIG, pattern=(LayerKind(rope=Rope(scaling=scaling)),)).context == context


def test_gemma_3_says_the_stretched_length():
    config = dataclasses.replace(CONFIG, family="gemma3_text", pattern=(LayerKind(rope=Rope(scaling=RopeScaling("linear", 8.0))),))
    assert config.context == 64


def test_a_pattern_repeats_over_the_layers():
    config = dataclasses.replace(CONFIG, pattern=(NEAR, NEAR, FAR, NEAR))
    assert config.kinds == (NEAR, FAR)
    assert config.kind_of_layer == (0, 0, 1, 0, 0, 0)
    assert CONFIG.kind_of_layer == (0,) * 6


@pytest.mark.parametrize(("changes", "message"), [({"kv_heads": 3}, "can't share 3"), ({"head_width": 7}, "odd")])
def test_what_no_decoder_can_be(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
