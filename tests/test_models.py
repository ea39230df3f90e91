"""The decoder: causality, cached decoding, every execution mode, and a NumPy reference of the whole forward pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lilo_jax.device.mesh import RULES, unconstrained
from lilo_jax.models import Model, build_model
from lilo_jax.models.cache import LayerCache, attend_cache, quantize
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.layers import by_layer
from lilo_jax.models.rope import Rope, frequencies, rotate

CONFIG = DecoderConfig(
    num_layers=2,
    embed_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=24,
    vocab_size=23,
    rope=Rope(theta=100.0),
)
SCANNED = dataclasses.replace(CONFIG, train_layers="scanned", decode_layers="scanned")
BOTH = pytest.mark.parametrize("config", [CONFIG, SCANNED], ids=["unrolled", "scanned"])


@functools.cache
def model_of(config: DecoderConfig) -> Model:
    return build_model(config, unconstrained)


def shapes_of(config: DecoderConfig):
    return jax.eval_shape(model_of(config).init, jax.random.key(0))


@pytest.fixture(scope="module")
def params(random_weights):
    return random_weights(shapes_of(CONFIG))


@pytest.fixture(scope="module")
def tied_params(random_weights):
    return random_weights(shapes_of(dataclasses.replace(CONFIG, tie_embeddings=True)))


@functools.cache
def jitted_hidden(config: DecoderConfig):
    return jax.jit(model_of(config).hidden)


@functools.cache
def jitted_extend(config: DecoderConfig):
    return jax.jit(model_of(config).extend)


@functools.cache
def jitted_decode(config: DecoderConfig):
    return jax.jit(model_of(config).decode)


@functools.cache
def jitted_weights(config: DecoderConfig):
    return jax.jit(model_of(config).decoding_weights)


def full_logits(config: DecoderConfig, params, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(model_of(config).logits(params, jitted_hidden(config)(params, tokens)))


def random_tokens(rows: int, slots: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(CONFIG.vocab_size, size=(rows, slots)).astype(np.int32)


# -------------------------------------------------------------------------------------------------- NumPy references
def rotate_reference(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """RoPE by complex multiplication: (x_i + i x_{i + H/2}) e^{i p theta^{-2i/H}}."""
    half = x.shape[-1] // 2
    angles = positions[..., None, None] * theta ** (-2 * np.arange(half) / x.shape[-1])
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def attend_reference(query: np.ndarray, keys: np.ndarray, values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Plain loops over rows, queries and heads; every key head is repeated for the query heads that share it."""
    shared = query.shape[2] // keys.shape[2]
    keys, values = np.repeat(keys, shared, axis=2), np.repeat(values, shared, axis=2)
    out = np.zeros(query.shape)
    for b in range(query.shape[0]):
        for t in range(query.shape[1]):
            seen = positions[b, t] + 1
            for h in range(query.shape[2]):
                scores = keys[b, :seen, h] @ query[b, t, h] / np.sqrt(query.shape[-1])
                weights = np.exp(scores - scores.max())
                out[b, t, h] = weights / weights.sum() @ values[b, :seen, h]
    return out


def forward_reference(params, config: DecoderConfig, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states and logits of the whole decoder in float64."""
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    trunk, layers = params["trunk"], params["trunk"]["layers"]
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + config.norm_epsilon) * scale

    x = trunk["embedding"][tokens]
    for i in range(config.num_layers):
        attention, mlp = ({k: w[i] for k, w in layers[name].items()} for name in ("attention", "mlp"))
        y = norm(x, layers["attention_norm"]["scale"][i])
        query, key, value = (np.einsum("btd,dnh->btnh", y, attention[k]) for k in ("query", "key", "value"))
        query, key = (rotate_reference(z, positions, config.rope.theta) for z in (query, key))
        x = x + np.einsum("btnh,nhd->btd", attend_reference(query, key, value, positions), attention["output"])
        y = norm(x, layers["mlp_norm"]["scale"][i])
        gate = y @ mlp["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ mlp["up"])) @ mlp["down"]
    hidden = norm(x, trunk["norm"]["scale"])
    return hidden, hidden @ (trunk["embedding"].T if config.tie_embeddings else params["head"])


# ------------------------------------------------------------------------------------------------------ whole decoder
@BOTH
@pytest.mark.parametrize("tied", [False, True])
def test_forward_pass_equals_numpy_reference(config, tied, params, tied_params):
    config = dataclasses.replace(config, tie_embeddings=tied)
    params, tokens = tied_params if tied else params, random_tokens(3, 9)
    hidden = jitted_hidden(config)(params, tokens)
    expected_hidden, expected_logits = forward_reference(params, config, tokens)
    np.testing.assert_allclose(hidden, expected_hidden, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(model_of(config).logits(params, hidden), expected_logits, atol=1e-4, rtol=1e-4)
    assert np.std(expected_logits) > 0.3


def test_values_are_an_affine_function_of_the_hidden_states(random_weights):
    model = model_of(CONFIG)
    shapes = jax.eval_shape(model.init_critic, jax.random.key(0))
    assert shapes["head"].shape == (CONFIG.embed_dim,)
    assert shapes["bias"].shape == ()
    critic, tokens = random_weights(shapes), random_tokens(3, 9)
    expected = forward_reference(critic | {"head": critic["head"][:, None]}, CONFIG, tokens)[1][..., 0] + critic["bias"]
    np.testing.assert_allclose(model.values(critic, jitted_hidden(CONFIG)(critic, tokens)), expected, atol=1e-4)
    assert abs(critic["bias"]) > 0.01


@BOTH
def test_later_tokens_change_no_earlier_hidden_state(config, params):
    tokens = random_tokens(3, 9)
    before = np.asarray(jitted_hidden(config)(params, tokens))
    for changed in (1, 5, 8):
        other = tokens.copy()
        other[:, changed] = (other[:, changed] + 1) % CONFIG.vocab_size
        after = np.asarray(jitted_hidden(config)(params, other))
        np.testing.assert_array_equal(after[:, :changed], before[:, :changed])
        assert np.all(np.abs(after[:, changed:] - before[:, changed:]).max(axis=-1) > 1e-3)


def test_rows_do_not_influence_one_another(params):
    tokens = random_tokens(3, 9)
    other = np.stack([tokens[0], *tokens[1:, ::-1]])
    np.testing.assert_array_equal(
        jitted_hidden(CONFIG)(params, tokens)[0], np.asarray(jitted_hidden(CONFIG)(params, other))[0]
    )


# -------------------------------------------------------------------------------------------------- cached decoding
@BOTH
@pytest.mark.parametrize("tied", [False, True])
def test_one_token_at_a_time_equals_the_full_pass(config, tied, params, tied_params):
    config, params = dataclasses.replace(config, tie_embeddings=tied), tied_params if tied else params
    tokens, weights = random_tokens(3, 9), jitted_weights(config)(params)
    cache, steps = model_of(config).init_cache(3, 9), []
    for t in range(9):
        logits, cache = jitted_decode(config)(weights, tokens[:, t], np.full(3, t, np.int32), cache)
        steps.append(logits)
    np.testing.assert_allclose(np.stack(steps, axis=1), full_logits(config, params, tokens), atol=2e-5)


@BOTH
def test_prefill_then_decode_equals_the_full_pass_for_rows_of_different_lengths(config, params):
    """Prompts are padded with rubbish, each row goes on at its own position, and rows are copied and reordered."""
    model, tokens, weights = model_of(config), random_tokens(3, 9), jitted_weights(config)(params)
    hidden, logits = np.asarray(jitted_hidden(config)(params, tokens)), full_logits(config, params, tokens)
    prompt_lengths = np.array([2, 5, 3])
    prompts = np.where(np.arange(5) < prompt_lengths[:, None], tokens[:, :5], 7).astype(np.int32)
    prefilled, cache = jitted_extend(config)(weights, prompts, np.int32(0), model.init_cache(3, 5))
    for row, length in enumerate(prompt_lengths):
        np.testing.assert_allclose(prefilled[row, :length], hidden[row, :length], atol=1e-5)

    rows = np.array([2, 0, 1, 0])
    cache = jax.jit(model.take, static_argnums=2)(cache, rows, 9)
    for step in range(4):
        positions = (prompt_lengths[rows] + step).astype(np.int32)
        found, cache = jitted_decode(config)(weights, tokens[rows, positions], positions, cache)
        np.testing.assert_allclose(found, logits[rows, positions], atol=2e-5)


@BOTH
def test_a_row_given_to_another_sequence_forgets_the_one_before(config, params):
    """Row 1 has decoded 6 tokens of another sequence; a prefix of 3 tokens is written over it, and it goes on."""
    model, tokens, weights = model_of(config), random_tokens(3, 9), jitted_weights(config)(params)
    logits = full_logits(config, params, tokens)
    _, prefixes = jitted_extend(config)(weights, tokens[:, :3], np.int32(0), model.init_cache(3, 3))
    _, cache = jitted_extend(config)(weights, tokens[::-1, :6].copy(), np.int32(0), model.init_cache(3, 9))
    out_of_range = 3
    cache = jax.jit(model.copy)(cache, np.array([1, out_of_range, 2]), prefixes, np.array([2, 1, 0]))
    rows, positions = np.array([2, 2, 0]), np.array([6, 3, 3], np.int32)  # row 0 was left alone
    for step in range(3):
        found, cache = jitted_decode(config)(weights, tokens[rows, positions + step], positions + step, cache)
        np.testing.assert_allclose(found, logits[rows, positions + step], atol=2e-5)


@BOTH
def test_a_run_of_tokens_may_extend_a_filled_cache(config, params):
    model, tokens, weights = model_of(config), random_tokens(3, 9), jitted_weights(config)(params)
    _, cache = jitted_extend(config)(weights, tokens[:, :3], np.int32(0), model.init_cache(3, 9))
    hidden, _ = jitted_extend(config)(weights, tokens[:, 3:], np.int32(3), cache)
    np.testing.assert_allclose(hidden, jitted_hidden(config)(params, tokens)[:, 3:], atol=1e-5)


def test_the_order_of_the_products_changes_rounding_only(params):
    """A CPU multiplies with transposed weights on the left, accelerators with weights as they are."""
    tokens = random_tokens(3, 1)[:, 0]
    found = {}
    for platform in ("cpu", "tpu"):
        model = build_model(CONFIG, unconstrained, platform=platform)
        weights = model.decoding_weights(params)
        found[platform] = jax.jit(model.decode)(weights, tokens, np.zeros(3, np.int32), model.init_cache(3, 2))[0]
    np.testing.assert_allclose(found["cpu"], found["tpu"], atol=1e-5)


# --------------------------------------------------------------------------------------------------------- cache dtypes
def test_eight_bit_integers_are_within_half_a_step():
    x = np.random.default_rng(0).standard_normal((5, 3, 16)).astype(np.float32) * 10.0
    x[2, 1] = 0
    integers, scales = quantize(x)
    assert integers.dtype == jnp.int8
    np.testing.assert_allclose(scales, np.abs(x).max(axis=-1) / 127, rtol=1e-6)
    error = np.abs(np.asarray(integers, np.float32) * np.asarray(scales)[..., None] - x)
    assert np.all(error <= 0.5001 * np.asarray(scales)[..., None])
    assert np.abs(integers).max() == 127
    assert not np.any(integers[2, 1])


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(("dtype", "smallest", "largest"), [("bfloat16", 1e-4, 0.05), ("int8", 1e-4, 0.1)])
def test_a_cache_of_fewer_bits_moves_logprobs_a_little(config, dtype, smallest, largest, params):
    """The whole machinery: prefill, copied rows, one token at a time; the error is there, and small."""
    config = dataclasses.replace(config, cache_dtype=dtype)
    model, tokens, weights = model_of(config), random_tokens(3, 9), jitted_weights(config)(params)
    cache = model.init_cache(3, 9)
    assert {leaf.dtype for leaf in jax.tree.leaves(cache) if leaf.ndim >= 4} >= {np.dtype(dtype)}
    _, prefixes = jitted_extend(config)(weights, tokens[:, :4], np.int32(0), model.init_cache(3, 4))
    cache = jax.jit(model.copy)(cache, np.arange(3), prefixes, np.arange(3))
    cache = jax.jit(model.take, static_argnums=2)(cache, np.arange(3), 9)
    steps = []
    for t in range(4, 9):
        logits, cache = jitted_decode(config)(weights, tokens[:, t], np.full(3, t, np.int32), cache)
        steps.append(jax.nn.log_softmax(logits))
    expected = jax.nn.log_softmax(full_logits(CONFIG, params, tokens)[:, 4:])
    error = np.abs(np.stack(steps, axis=1) - expected).max()
    assert smallest < error < largest


# --------------------------------------------------------------------------------------------------- execution modes
def gradient_of_a_loss(config: DecoderConfig, params):
    model = model_of(config)

    def loss(params, tokens):
        return jnp.mean(model.logits(params, model.hidden(params, tokens)) ** 2)

    return jax.jit(jax.value_and_grad(loss))(params, random_tokens(3, 9))


@pytest.fixture(scope="module")
def plain_gradient(params):
    return gradient_of_a_loss(CONFIG, params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "remat"), [("scanned", "none"), ("unrolled", "layers"), ("scanned", "layers"), ("scanned", "products")]
)
def test_execution_modes_give_the_same_loss_and_gradient(layers, remat, params, plain_gradient):
    value, gradient = gradient_of_a_loss(dataclasses.replace(CONFIG, train_layers=layers, remat=remat), params)
    expected_value, expected = plain_gradient
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    assert all(np.abs(g).max() > 1e-5 for g in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), gradient, expected)


def test_weights_taken_apart_by_layer_have_one_concatenation_as_their_gradient():
    stacked = {"a": jnp.arange(24.0).reshape(3, 4, 2), "b": jnp.arange(3.0)}
    for i, weights in enumerate(by_layer(stacked, 3)):
        jax.tree.map(np.testing.assert_array_equal, weights, jax.tree.map(lambda w, i=i: w[i], stacked))

    def loss(stacked):
        return sum((i + 1) * jnp.sum(weights["a"]) for i, weights in enumerate(by_layer(stacked, 3)))

    np.testing.assert_array_equal(jax.grad(loss)(stacked)["a"][:, 0, 0], [1, 2, 3])
    operations = {equation.primitive.name for equation in jax.make_jaxpr(jax.grad(loss))(stacked).eqns}
    assert "concatenate" in operations
    assert "pad" not in operations


@pytest.mark.slow
def test_recomputing_takes_less_memory_without_more_settings():
    """On CPU, where unrolled layers would keep everything all the same."""

    def temporary(remat):
        model = model_of(dataclasses.replace(CONFIG, num_layers=6, remat=remat))

        def loss(params, tokens):
            return jnp.mean(model.hidden(params, tokens) ** 2)

        shapes = jax.eval_shape(model.init, jax.random.key(0)), jax.ShapeDtypeStruct((8, 64), np.int32)
        return jax.jit(jax.grad(loss)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary("layers") < 0.6 * temporary("none")


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights_and_gradients(params, plain_gradient):
    config = dataclasses.replace(CONFIG, compute_dtype="bfloat16")
    tokens = random_tokens(3, 9)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(config))} == {np.dtype("float32")}
    hidden = jitted_hidden(config)(params, tokens)
    logits = model_of(config).logits(params, hidden)
    assert hidden.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(model_of(config).init_cache(1, 2))} == {np.dtype("bfloat16")}
    error = np.abs(np.asarray(hidden, np.float32) - jitted_hidden(CONFIG)(params, tokens))
    assert 1e-4 < error.max() < 0.15
    value, gradient = gradient_of_a_loss(config, params)
    np.testing.assert_allclose(value, plain_gradient[0], rtol=0.05)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype("float32")}


# ----------------------------------------------------------------------------------------------------------- parts
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
def test_grouped_query_attention_equals_attention_with_repeated_heads(heads, kv_heads):
    rng = np.random.default_rng(heads * 10 + kv_heads)
    query = rng.standard_normal((2, 3, heads, 8)).astype(np.float32)
    keys, values = rng.standard_normal((2, 2, 7, kv_heads, 8)).astype(np.float32)
    positions = np.array([[0, 3, 6], [2, 2, 5]], np.int32)
    cache = LayerCache(keys=keys.transpose(0, 2, 3, 1), values=values.transpose(0, 2, 1, 3))
    found = attend_cache(query, cache, positions)
    np.testing.assert_allclose(found, attend_reference(query, keys, values, positions), atol=1e-5)


def test_rotary_embedding_equals_complex_rotation():
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 8)).astype(np.float32)
    positions = np.array([[0, 1, 2, 3], [5, 40, 7, 1000]], np.int32)
    np.testing.assert_allclose(
        rotate(x, positions, frequencies(Rope(theta=100.0), 8, 0)), rotate_reference(x, positions, 100.0), atol=1e-4
    )
    np.testing.assert_array_equal(rotate(x, np.zeros((2, 4), np.int32), frequencies(Rope(theta=100.0), 8, 0)), x)


def test_rotated_products_depend_on_the_distance_alone():
    rng = np.random.default_rng(1)
    query, key = rng.standard_normal((2, 1, 1, 1, 16)).astype(np.float32)

    def product(query_position: int, key_position: int) -> float:
        turned = [
            np.asarray(rotate(x, np.full((1, 1), p, np.int32), frequencies(Rope(theta=100.0), 16, 0)))
            for x, p in ((query, query_position), (key, key_position))
        ]
        return float(np.sum(turned[0] * turned[1]))

    assert product(5, 2) == pytest.approx(product(25, 22), abs=1e-4)
    assert product(5, 2) == pytest.approx(product(103, 100), abs=1e-4)
    assert abs(product(5, 2) - product(5, 3)) > 1e-2
    assert abs(product(5, 2) - product(2, 5)) > 1e-2


# ---------------------------------------------------------------------------------------------------------- weights
def test_tied_model_has_no_head_and_projects_on_the_embedding(params, tied_params):
    tied = dataclasses.replace(CONFIG, tie_embeddings=True)
    assert set(tied_params) == {"trunk"}
    assert set(params) == {"trunk", "head"}
    hidden = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    expected = hidden @ tied_params["trunk"]["embedding"].T
    np.testing.assert_allclose(model_of(tied).logits(tied_params, hidden), expected, atol=1e-5)
    np.testing.assert_allclose(model_of(CONFIG).logits(params, hidden), hidden @ params["head"], atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, SCANNED, dataclasses.replace(CONFIG, tie_embeddings=True)])
def test_every_weight_has_known_logical_axes_of_its_rank(config):
    model = model_of(config)
    for init, axes in ((model.init, model.axes), (model.init_critic, model.critic_axes)):
        shapes = jax.eval_shape(init, jax.random.key(0))
        is_names = lambda x: isinstance(x, tuple)  # noqa: E731
        assert jax.tree.structure(shapes) == jax.tree.structure(axes, is_leaf=is_names)
        for leaf, names in zip(jax.tree.leaves(shapes), jax.tree.leaves(axes, is_leaf=is_names), strict=True):
            assert len(names) == leaf.ndim
            assert set(names) <= set(RULES)
    sizes = {"embed": 16, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp": 24, "vocab": 23, "layers": 2}
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    named = jax.tree.map(lambda names: tuple(sizes[n] for n in names), model.axes, is_leaf=is_names)
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == named


@pytest.mark.slow
def test_initial_weights_differ_between_layers_and_keys_and_have_the_stated_scale():
    config = dataclasses.replace(CONFIG, embed_dim=64, mlp_dim=128)
    init = jax.jit(model_of(config).init)
    params, other = init(jax.random.key(0)), init(jax.random.key(1))
    gate, output = params["trunk"]["layers"]["mlp"]["gate"], params["trunk"]["layers"]["attention"]["output"]
    assert np.abs(gate[0] - gate[1]).max() > 0.1
    assert np.abs(params["head"] - other["head"]).max() > 0.1
    truncated_std = 0.8796  # of a standard normal cut at two deviations
    assert np.std(gate) == pytest.approx(truncated_std / np.sqrt(64), rel=0.05)
    assert np.std(output) == pytest.approx(truncated_std / np.sqrt(32) / 2, rel=0.05)
    again = init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, params, again)
