"""The engine against the plain forward pass, and against itself in other company."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpolya.config import DecodeConfig, MeshConfig, Sampling
from jaxpolya.decode.burst import make_burst
from jaxpolya.decode.engine import Completion, Engine, Request, Table, lane_shape, prompt_bucket, shared_tokens
from jaxpolya.decode.lanes import Plan, make_empty
from jaxpolya.decode.prefill import make_prefill, prompts_together
from jaxpolya.decode.sampling import Draw
from jaxpolya.errors import InputError
from jaxpolya.models.config import DecoderConfig, LayerKind
from jaxpolya.models.decoder import head_table, hidden_states, init_params
from jaxpolya.models.heads import logits, token_logprobs
from jaxpolya.parallel.mesh import make_mesh

CONFIG = DecoderConfig("qwen2", 97, 32, 48, 2, 4, 2, 8, 512, tied_embeddings=True, qkv_bias=True)
STOP = 5


@pytest.fixture(scope="module")
def params():
    # Large enough to make the distributions far from uniform, so that a wrong key or position shows.
    return jax.tree.map(lambda x: x * 1.5, init_params(CONFIG, jax.random.key(1)))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(params=["cpu", "tpu", "gpu"])
def layout(request, monkeypatch):
    """Keys as CPUs' lanes hold them, and as other devices' do; for GPUs also attention by the kernel, and prompts written by a scatter."""
    if request.param == "cpu":
        yield
        return
    if request.param == "gpu":
        monkeypatch.setattr("jaxpolya.decode.kernel.INTERPRET", True)
        monkeypatch.setattr("jaxpolya.decode.engine.decode_attention", lambda *_: ("pallas", None))
        monkeypatch.setattr("jaxpolya.decode.prefill.scatters_prompts", lambda platform: True)
    for module in ("lanes", "prefill", "burst", "attention"):
        monkeypatch.setattr(f"jaxpolya.decode.{module}.turns_keys", lambda platform: False)
    programs = make_empty, make_prefill, make_burst
    for program in programs:
        program.cache_clear()
    yield
    for program in programs:
        program.cache_clear()


def requests(count: int, samples: int, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(6, 97, rng.integers(1, 60)).tolist() for _ in range(count)]
    return [Request(f"r{i}", prompt, i * samples, range(samples)) for i, prompt in enumerate(prompts)]


def engine(mesh, *, rows=8, burst=4, prompts=100, samples=2, longest=60, **sampling) -> Engine:
    sampling = {"max_new_tokens": 13, "temperature": 1.0} | sampling
    return Engine(
        CONFIG, mesh, sampling=Sampling(**sampling), prompts=prompts, samples=samples, longest_prompt=longest, stop_ids=[STOP],
        decode=lambda ids: " ".join(map(str, ids)), engine=DecodeConfig(rows=rows, burst=burst), dtype=jnp.float32,
    )  # fmt: skip


def run(engine, params, asked, seed=0) -> list[Completion]:
    return [done for burst in engine.run(params, asked, seed) for done in burst]


def by_sample(completions) -> dict[tuple[str, int], Completion]:
    return {(done.request.id, done.index): done for done in completions}


@jax.jit
def hidden_of(params, row: jax.Array) -> jax.Array:
    return hidden_states(params, CONFIG, row, jnp.arange(row.shape[1])[None], jnp.ones_like(row))


def padded(tokens: list[int]) -> jax.Array:
    """A row of one of few lengths, so that few programs are compiled."""
    return jnp.array([[*tokens, *[0] * (-len(tokens) % 128)]])


def forward_logits(params, tokens: list[int]) -> jax.Array:
    return logits(CONFIG, hidden_of(params, padded(tokens)), head_table(params))[0, : len(tokens)]


def test_greedy_tokens_are_those_of_the_plain_forward_pass(params, mesh):
    for done in run(engine(mesh, temperature=0.0, samples=1), params, requests(5, 1), seed=0):
        scores = forward_logits(params, [*done.request.prompt, *done.tokens])
        expected = jnp.argmax(scores, axis=-1)[len(done.request.prompt) - 1 : -1]
        assert done.tokens == expected.tolist()


def test_every_sample_comes_back_once_and_ends_where_it_should(params, mesh):
    asked = requests(9, 3)
    completions = list(run(engine(mesh, samples=3), params, asked, seed=3))
    assert sorted((done.request.id, done.index) for done in completions) == sorted((r.id, i) for r in asked for i in range(3))
    assert {done.finish for done in completions} == {"stop", "length"}
    for done in completions:
        assert len(done.logprobs) == len(done.tokens)
        if done.finish == "stop":
            assert done.tokens.index(STOP) == len(done.tokens) - 1
            assert done.text == " ".join(map(str, done.tokens[:-1]))
        else:
            assert len(done.tokens) == 13 and STOP not in done.tokens


def test_sampler_and_trainer_agree_on_log_probs(params, mesh, layout):
    for done in run(engine(mesh, temperature=0.7), params, requests(4, 2), seed=1):
        start, row = len(done.request.prompt) - 1, padded([*done.request.prompt, *done.tokens])
        logp, _ = token_logprobs(CONFIG, hidden_of(params, row)[:, :-1], head_table(params), row[:, 1:], temperature=0.7)
        np.testing.assert_allclose(done.logprobs, logp[0, start : start + len(done.tokens)], atol=1e-4)


@pytest.mark.parametrize("samples", [2, 8])
def test_a_sample_is_the_same_bits_wherever_and_whenever_it_is_drawn(params, mesh, layout, samples):
    """In lanes of rows that several prompts stream through."""
    drawing = engine(mesh, samples=samples)
    assert (drawing.plan.rows, drawing.plan.prompts) == {2: (2, 2), 8: (8, 4)}[samples]
    asked = requests(7, samples)
    first = by_sample(run(drawing, params, asked, seed=7))
    rest = [dataclasses.replace(r, samples=[1, *range(3, samples)]) if i % 2 else r for i, r in enumerate(asked)][::-1]
    again = by_sample(run(drawing, params, rest, seed=7))
    assert len(first) == 7 * samples and len(again) == sum(len(request.samples) for request in rest)
    for key, done in again.items():
        assert done == dataclasses.replace(first[key], request=done.request)
    assert drawing.usage.kept == sum(len(done.tokens) for done in [*first.values(), *again.values()])
    assert 0.4 < drawing.usage.busy < 1


@pytest.mark.parametrize(("prompts", "samples", "rows"), [(40, 64, 64), (30, 16, 8), (50, 8, 24), (20, 1, 8), (9, 5, 45), (100, 5, 256)])
def test_rows_draw_every_sample_once_beside_its_own_prompt_and_seldom_wait(prompts, samples, rows):
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(1.5, 0.5, (prompts, samples)), 1, 16).astype(int)  # in bursts
    lanes, group, held = lane_shape(rows, prompts, samples)
    assert 0.98 * rows <= lanes * group <= rows
    plan = Plan(CONFIG, lanes, group, 32, 16, 1, Draw(), prompts=held)
    table = Table(plan, 1, [Request(str(i), [7] * (i + 1), i * samples, range(samples)) for i in range(prompts)])
    prefixes, left, drawn, bursts = {}, np.zeros((lanes, group), int), [], 0
    while table.busy:
        for lane, place, request in table.refill():
            assert place < held and not left[lane, table.place_PG[lane] == place].any(), "a prefix in use was lost"
            prefixes[lane, place] = request
        for lane, row in np.argwhere(table.live_PG & (left == 0)).tolist():
            left[lane, row] = lengths.ravel()[table.sequence_PG[lane, row]]
            request = prefixes[lane, int(table.place_PG[lane, row])]
            assert table.prompt_PG[lane, row] == len(request.prompt) - 1
            assert 0 <= table.sequence_PG[lane, row] - request.sequence < samples
        bursts += 1
        left[table.live_PG] -= 1
        for lane, row in np.argwhere(table.live_PG & (left == 0)).tolist():
            drawn.append((table.sequence_PG[lane, row], *table.end(lane, row)))
    assert sorted(sequence for sequence, _, _ in drawn) == list(range(prompts * samples))
    assert all(sequence == request.sequence + index for sequence, request, index in drawn)
    tail = lengths.max() * lanes * group  # the last responses run while none is left to begin
    assert lengths.sum() > 0.9 * (bursts * lanes * group - tail)


def test_prompts_that_begin_alike_share_a_prefill_and_draw_the_same(params, mesh):
    rng = np.random.default_rng(2)
    beginnings = [rng.integers(6, 97, size).tolist() for size in (70, 130)]
    prompts = [[*beginnings[i % 2], *rng.integers(6, 97, rng.integers(1, 30)).tolist()] for i in range(6)]
    shares = [shared_tokens([p for j, p in enumerate(prompts) if j % 2 == i % 2]) for i in range(6)]
    assert shares == [64, 128] * 3
    asked = [Request(f"r{i}", prompt, 2 * i, range(2)) for i, prompt in enumerate(prompts)]
    sharing = [dataclasses.replace(request, shared=share) for request, share in zip(asked, shares, strict=True)]
    for several in (mesh, make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))):
        apart, together = (by_sample(run(engine(several, longest=160), params, r, seed=5)) for r in (asked, sharing))
        assert {key: done.tokens for key, done in together.items()} == {key: done.tokens for key, done in apart.items()}
        for key, done in together.items():
            # Other shapes, other roundings: some fifty units in the last place, more on some CPUs than on others.
            np.testing.assert_allclose(done.logprobs, apart[key].logprobs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("burst", [4, 8], ids=["bursts within the window", "bursts beyond it"])
def test_a_row_s_next_sample_sees_nothing_of_the_one_before_through_a_window(mesh, layout, burst):
    """A ring of a window's length still holds the keys of the row's sample before; the next one is longer than the ring, too."""
    config = dataclasses.replace(CONFIG, pattern=(LayerKind(window=6), LayerKind()))
    params = jax.tree.map(lambda x: x * 1.5, init_params(config, jax.random.key(1)))
    asked = requests(5, 8)
    drawing = Engine(
        config, mesh, sampling=Sampling(max_new_tokens=21, temperature=1.0), prompts=5, samples=8, longest_prompt=60, stop_ids=[STOP],
        decode=str, engine=DecodeConfig(rows=8, burst=burst), dtype=jnp.float32,
    )  # fmt: skip
    assert (drawing.plan.rows, drawing.plan.prompts) == (8, 4)
    first = by_sample(run(drawing, params, asked, seed=7))
    some = [dataclasses.replace(request, samples=[6, 2]) for request in asked[::-1]]
    for key, done in by_sample(run(drawing, params, some, seed=7)).items():
        assert done == dataclasses.replace(first[key], request=done.request)
    for done in [first["r0", 7], first["r3", 5], first["r4", 0]]:
        start, row = len(done.request.prompt) - 1, padded([*done.request.prompt, *done.tokens])
        hidden = hidden_states(params, config, row, jnp.arange(row.shape[1])[None], jnp.ones_like(row))
        logp, _ = token_logprobs(config, hidden[:, :-1], head_table(params), row[:, 1:])
        np.testing.assert_allclose(done.logprobs, logp[0, start : start + len(done.tokens)], atol=1e-4)


def test_prompts_that_are_prefilled_together_are_the_same_bits_in_any_company(params, mesh, layout, monkeypatch):
    """As on accelerators, where a batch has rows for several prompts and the last ones may be empty."""
    lengths = (32, 64, 128, 384, 2048)
    together = {platform: [prompts_together(tokens, platform) for tokens in lengths] for platform in ("cpu", "tpu", "gpu")}
    assert together == {"cpu": [1] * 5, "tpu": [8, 4, 2, 1, 1], "gpu": [8, 8, 8, 2, 1]}
    for several in (mesh, make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))):
        drawing, asked = engine(several, longest=160), requests(7, 2)
        one_by_one = by_sample(run(drawing, params, asked, seed=7))
        with monkeypatch.context() as patch:
            patch.setattr("jaxpolya.decode.engine.prompts_together", lambda tokens, platform: 3)
            first = by_sample(run(drawing, params, asked, seed=7))
            for few in (asked[5:6], asked[::-2]):
                for key, done in by_sample(run(drawing, params, few, seed=7)).items():
                    assert done == dataclasses.replace(first[key], request=done.request)
        assert {key: done.tokens for key, done in first.items()} == {key: done.tokens for key, done in one_by_one.items()}


def test_nothing_is_shared_by_one_prompt_or_a_short_beginning():
    assert shared_tokens([[1] * 200]) == 0
    assert shared_tokens([[1] * 200, [1] * 63 + [2] * 90]) == 0
    assert shared_tokens([[1] * 128, [1] * 200]) == 64  # the shorter one's last token is not prefilled
    assert shared_tokens([[1] * 64 + [2], [1] * 64 + [3]]) == 0  # something is left for a prefill of the prompt's own


def test_seed_and_sequence_change_the_draw(params, mesh):
    asked = requests(3, 2)
    tokens = [[done.tokens for _, done in sorted(by_sample(run(engine(mesh), params, asked, seed=seed)).items())] for seed in (1, 2)]
    assert tokens[0] != tokens[1]
    assert all(tokens[0][i] != tokens[0][i + 1] for i in (0, 2, 4))


def test_more_samples_than_rows_share_no_lane_but_the_same_draws(params, mesh):
    asked = requests(2, 6)
    wide, narrow = (by_sample(run(engine(mesh, rows=rows, prompts=2, samples=6), params, asked, seed=4)) for rows in (12, 4))
    assert {key: done.tokens for key, done in wide.items()} == {key: done.tokens for key, done in narrow.items()}


def test_long_suffixes_are_read_in_blocks(params, mesh, layout):
    long = engine(mesh, rows=2, burst=32, samples=1, max_new_tokens=400, temperature=0.0)
    # Nothing stops, so that the row runs through several block counts.
    long.stop_ids = frozenset()
    (done,) = run(long, params, requests(1, 1))
    scores = forward_logits(params, [*done.request.prompt, *done.tokens])
    expected = jnp.argmax(scores, axis=-1)[len(done.request.prompt) - 1 : -1]
    assert len(done.tokens) == 400 and done.tokens == expected.tolist()


def test_stop_strings_end_a_response_and_are_cut_off(params, mesh):
    asked = requests(3, 1)
    free = by_sample(run(engine(mesh, samples=1), params, asked, seed=5))
    longest = max(free.values(), key=lambda done: len(done.tokens))
    word = str(longest.tokens[len(longest.tokens) // 2])
    stopped = by_sample(run(engine(mesh, samples=1, stop=[f"{word} "]), params, asked, seed=5))[longest.request.id, longest.index]
    assert stopped.finish == "stop"
    assert f"{word} " not in stopped.text and longest.text.startswith(stopped.text)
    assert len(stopped.text.split()) < len(stopped.tokens) <= len(longest.tokens)


def test_stop_strings_may_hold_the_stop_token(params, mesh):
    asked = requests(30, 2)
    free = by_sample(run(engine(mesh), params, asked, seed=3))
    ended = next(done for done in free.values() if done.finish == "stop" and len(done.tokens) > 2)
    last = f"{ended.tokens[-2]} {STOP}"
    assert last not in ended.text
    stopped = by_sample(run(engine(mesh, stop=[last]), params, asked, seed=3))[ended.request.id, ended.index]
    assert (stopped.tokens, stopped.finish) == (ended.tokens, "stop")
    assert stopped.text == ended.text.removesuffix(str(ended.tokens[-2]))


def test_eight_devices_draw_the_same_greedy_tokens(params, mesh, layout):
    asked = requests(12, 2)
    one = by_sample(run(engine(mesh, temperature=0.0, rows=32), params, asked, seed=0))
    for shape in (MeshConfig(replica=2, fsdp=2, tensor=2), MeshConfig(fsdp=8)):
        many = by_sample(run(engine(make_mesh(shape), temperature=0.0, rows=32), params, asked, seed=0))
        assert {key: done.tokens for key, done in many.items()} == {key: done.tokens for key, done in one.items()}


def test_what_does_not_fit_the_model_is_refused(mesh):
    with pytest.raises(InputError, match="512 positions"):
        engine(mesh, max_new_tokens=500)


def test_prompt_buckets_waste_at_most_a_third():
    sizes = [prompt_bucket(n) for n in range(1, 3000)]
    assert all(size >= n for n, size in enumerate(sizes, 1))
    assert all((size - n) / size <= 1 / 3 for n, size in enumerate(sizes, 1) if n > 32)
    assert len(set(sizes)) < 16
