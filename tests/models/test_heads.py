"""Log-probs and entropies in chunks, with their gradient written out, are those of the whole softmax, differentiated by jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.models import heads
from jaxpolya.models.config import DecoderConfig
from jaxpolya.models.heads import chunk_tokens, token_logprobs

B, T, D, V = 2, 13, 8, 50


@pytest.mark.parametrize(
    ("chunk", "cap", "entropy_gradient"), [(None, None, False), (None, 4.0, True), (5, 4.0, True)], ids=["kept", "kept, capped", "chunks"]
)
def test_values_and_gradients_are_those_of_the_whole_softmax(chunk, cap, entropy_gradient):
    config = DecoderConfig("gemma2", V, D, 16, 1, 4, 2, 8, 64, logit_cap=cap)
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, table = jax.random.normal(keys[0], (B, T, D)) * 3, jax.random.normal(keys[1], (V, D))
    targets, wanted = jax.random.randint(keys[2], (B, T), 0, V), jax.random.normal(keys[3], (2, B, T))

    def by_definition(hidden, table):
        scores = jnp.einsum("btd,vd->btv", hidden, table, precision="highest")
        scores = (scores if cap is None else cap * jnp.tanh(scores / cap)) / 0.7
        logp = jax.nn.log_softmax(scores)
        entropy = -(jnp.exp(logp) * logp).sum(-1)
        entropy = entropy if entropy_gradient else jax.lax.stop_gradient(entropy)
        return jnp.stack([jnp.take_along_axis(logp, targets[..., None], -1)[..., 0], entropy])

    def ours(hidden, table):
        return jnp.stack(token_logprobs(config, hidden, table, targets, temperature=0.7, chunk=chunk, entropy_gradient=entropy_gradient))

    def differentiated(function):
        def loss(hidden, table):
            out = function(hidden, table)
            return (out * wanted).sum(), out

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(hidden, table)

    (_, expected), expected_gradients = differentiated(by_definition)
    (_, found), gradients = differentiated(ours)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    for gradient, of_definition in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, of_definition, atol=5e-5)


def test_chunks_follow_the_memory_and_the_sharding_of_the_vocabulary(monkeypatch, mesh8):
    monkeypatch.setattr(heads, "_chunk_bytes", lambda: 80 * 2**30 * heads.CHUNK_SHARE)
    assert chunk_tokens(151_936) == 4096
    with jax.set_mesh(mesh8):
        assert chunk_tokens(151_936) == 8192  # two devices hold half of the vocabulary each
        assert chunk_tokens(151_937) == 4096  # one that isn't divided
    monkeypatch.setattr(heads, "_chunk_bytes", lambda: 100)
    assert chunk_tokens(151_936) == 1
