"""Low-rank adapters: what they compute, what trains, what is stored, and what a merged model is."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from directories import load_arrays

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.device.mesh import RULES, unconstrained
from lilo_jax.keys import start_keys, stream_key
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.lora import TARGETS, LoraConfig, adapted, adapter_axes, combine, init_adapters, merge
from lilo_jax.pretrained.sources import open_model
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.digest import digests
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check, resolve
from lilo_jax.training.run import run

CONFIG = DecoderConfig(num_layers=3, embed_dim=16, num_heads=4, num_kv_heads=2, head_dim=6, mlp_dim=24, vocab_size=23)
SCANNED = dataclasses.replace(CONFIG, train_layers="scanned", decode_layers="scanned")
BOTH = pytest.mark.parametrize("config", [CONFIG, SCANNED], ids=["unrolled", "scanned"])
LORA = LoraConfig(rank=3, alpha=6.0)
TOKENS = np.random.default_rng(0).integers(23, size=(2, 9)).astype(np.int32)


@functools.cache
def model_of(config):
    return build_model(config, unconstrained)


@pytest.fixture(scope="module")
def base(random_weights):
    return random_weights(jax.eval_shape(model_of(CONFIG).init, jax.random.key(0)))


@pytest.fixture(scope="module")
def adapters(random_weights):
    make = functools.partial(init_adapters, model_of(CONFIG), LORA)
    return random_weights(jax.eval_shape(make, jax.random.key(0)), seed=1, deviation=0.15)


def logits(model, params):
    return jax.jit(lambda p: model.logits(p, model.hidden(p, TOKENS)))(params)


def merged_reference(base, adapters):
    """W + 2 A B by loops over layers."""
    layers = jax.tree.map(np.array, base["trunk"]["layers"])
    for name, part in TARGETS.items():
        a, b = adapters["trunk"]["layers"][part][name].values()
        for i in range(CONFIG.num_layers):
            product = a[i].reshape(-1, LORA.rank) @ b[i].reshape(LORA.rank, -1)
            layers[part][name][i] += 2.0 * product.reshape(layers[part][name][i].shape)
    return base | {"trunk": base["trunk"] | {"layers": layers}}


def test_merging_equals_the_numpy_reference(base, adapters):
    found, expected = merge(combine(base, adapters, LORA.scale)), merged_reference(base, adapters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


@BOTH
def test_adapter_logits_equal_merged_logits(config, base, adapters):
    model = model_of(config)
    apart, merged = combine(base, adapters, LORA.scale), merged_reference(base, adapters)
    np.testing.assert_allclose(logits(model, apart), logits(model, merged), atol=1e-5)
    assert np.abs(logits(model, apart) - logits(model, base)).max() > 0.02


@BOTH
def test_decoding_with_adapters_equals_the_full_pass(config, base, adapters):
    model = model_of(config)
    params = combine(base, adapters, LORA.scale)
    expected = logits(model, params)
    weights = jax.jit(model.decoding_weights)(params)
    _, cache = jax.jit(model.extend)(weights, TOKENS[:, :4], np.int32(0), model.init_cache(2, 9))
    for t in range(4, 9):
        found, cache = jax.jit(model.decode)(weights, TOKENS[:, t], np.full(2, t, np.int32), cache)
        np.testing.assert_allclose(found, expected[:, t], atol=2e-5)


@pytest.mark.slow
@BOTH
def test_gradients_reach_the_adapters_as_if_they_were_merged(config, base, adapters):
    model = model_of(config)

    def loss(model, params):
        return jnp.mean(model.logits(params, model.hidden(params, TOKENS)) ** 2)

    above = adapted(model, base, LORA.scale)
    found = jax.jit(jax.grad(lambda a: loss(above, a)))(adapters)
    expected = jax.jit(jax.grad(lambda a: loss(model, merge(combine(base, a, LORA.scale)))))(adapters)
    assert all(np.abs(g).max() > 1e-4 for g in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), found, expected)


def test_new_adapters_change_nothing_and_have_axes_of_their_rank(base):
    model = model_of(CONFIG)
    lora = dataclasses.replace(LORA, targets=("query", "output", "down"))
    fresh = init_adapters(model, lora, jax.random.key(1))
    np.testing.assert_array_equal(logits(model, combine(base, fresh, lora.scale)), logits(model, base))
    layers = fresh["trunk"]["layers"]
    assert {name for part in layers.values() for name in part} == {"query", "output", "down"}
    assert layers["attention"]["output"]["a"].shape == (3, 4, 6, 3)
    assert layers["attention"]["output"]["b"].shape == (3, 3, 16)
    down = layers["mlp"]["down"]["a"]
    assert np.std(down) == pytest.approx(1 / np.sqrt(24), rel=0.15)
    assert np.abs(down[0] - down[1]).max() > 0.1
    axes = adapter_axes(model, lora)
    for leaf, names in zip(
        jax.tree.leaves(fresh), jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple)), strict=True
    ):
        assert len(names) == leaf.ndim
        assert {name for name in names if name} <= set(RULES)


def test_policy_critic_and_head_are_drawn_by_keys_of_their_own():
    """The head's is that of a run without adapters."""
    keys = start_keys(3)
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3
    assert keys.critic_head == stream_key(3, "critic")


# ---------------------------------------------------------------------------------------------------------- whole runs
@pytest.fixture(scope="module", params=["ppo", "rloo"])
def lora_run(request, tiny_config, tiny_start, tmp_path_factory):
    """(config, directory) of a finished run with adapters: PPO has a reference and a critic, RLOO neither."""
    algorithm = {"ppo": Ppo(whitening="none"), "rloo": Rloo()}[request.param]
    config = configuration.replace(
        tiny_config, model__path=tiny_start, sft__steps=0, num_steps=4, algorithm=algorithm, lora=LoraConfig(rank=2)
    )
    result = run(config, Launch(output_dir=str(tmp_path_factory.mktemp("lora") / "run")))
    assert result.done
    return config, result


@pytest.mark.slow
def test_only_adapters_and_a_critics_head_are_stored(lora_run, tiny_start):
    _, result = lora_run
    _, arrays, _ = load_arrays(result.directory.checkpoints_path)
    weights = {name for name in arrays if "/params/" in name}
    assert {name for name in weights if not name.endswith(("/a", "/b"))} <= {"critic/params/head", "critic/params/bias"}
    assert not any(name.startswith(("base", "reference")) for name in arrays)
    assert any(np.abs(arrays[name]).max() > 0 for name in weights if name.endswith("/b"))
    _, whole, _ = load_arrays(pathlib.Path(tiny_start) / "checkpoints", "policy/params/")
    base = jax.tree.leaves(result.state.base)
    assert sum(leaf.size for leaf in base) == sum(leaf.size for leaf in whole.values())


@pytest.mark.slow
def test_the_base_stays_as_it_was(lora_run, tiny_start):
    config, result = lora_run
    assembly = assemble(config, check(config), tokenizer=open_model(tiny_start).tokenizer())
    start = open_model(tiny_start).weights(assembly.programs.model, assembly.mesh)
    jax.tree.map(np.testing.assert_array_equal, result.state.base, start)


@pytest.mark.slow
def test_a_run_directory_of_adapters_is_read_merged(lora_run):
    config, result = lora_run
    config = resolve(config)
    assembly = assemble(config, check(config), tokenizer=open_model(str(result.directory.path)).tokenizer())
    model, params = assembly.programs.model, assembly.policy(result.state)
    merged = open_model(str(result.directory.path)).weights(model, assembly.mesh)
    tokens = np.random.default_rng(0).integers(27, size=(2, 12)).astype(np.int32)
    apart = jax.jit(lambda p: model.logits(p, model.hidden(p, tokens)))
    np.testing.assert_allclose(apart(params), apart(merged), atol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_of_adapters_goes_on_bit_for_bit(lora_run, tmp_path):
    config, result = lora_run
    path = str(tmp_path / "run")
    run(config, Launch(output_dir=path, stop_at=2))
    again = run(config, Launch(output_dir=path))
    assert digests(again.directory) == digests(result.directory)


def test_the_reference_is_the_base(lora_run):
    """No second copy is kept; at the first step the adapters are zero, and so is the divergence from the reference."""
    config, result = lora_run
    assert result.state.reference is None
    found = [record.get("loss/kl_to_reference") for record in result.directory.read("metrics")]
    if isinstance(config.algorithm, Ppo):
        assert abs(found[0]) < 1e-6
        assert max(found[1:]) > 1e-8
    else:
        assert set(found) == {None}
