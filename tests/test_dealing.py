"""Requests dealt to the shards of a mesh: by hand, by their properties, and sampled on eight devices as on one."""

import json

import numpy as np
import pytest
from virtual_devices import printed_by

from lilo_jax.sampling.dealing import deal, dealt
from lilo_jax.types import Prompts, Requests


def asked(prompt, budget=None, expected=None) -> Requests:
    prompt = np.asarray(prompt, np.int32)
    zeros = np.zeros(len(prompt))
    return Requests(
        prompt=prompt,
        prefix_length=np.full(len(prompt), 3, np.int32),
        id=np.arange(len(prompt), dtype=np.int32) + 100,
        budget=np.asarray(zeros + 8 if budget is None else budget, np.int32),
        expected_length=np.asarray(zeros if expected is None else expected, np.float32),
    )


def test_groups_stay_together_and_the_longest_are_dealt_first():
    requests = asked([0, 0, 1, 1, 2, 2, 3, 3], expected=[5, 5, 40, 40, 10, 10, 30, 30])
    hand = deal(requests, 4, 2)
    assert hand.prompts.tolist() == [[1, 0], [3, 2]]  # 80 + 10 tokens and 60 + 20
    assert hand.requests.tolist() == [[2, 3, 0, 1], [6, 7, 4, 5]]
    assert hand.prompt.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_a_group_is_divided_where_there_are_fewer_groups_than_shards():
    hand = deal(asked([0] * 6), 1, 3)
    assert hand.prompts.tolist() == [[0], [0], [0]]
    assert sorted(hand.requests.reshape(-1)) == [0, 1, 2, 3, 4, 5]
    assert hand.requests.shape == (3, 2)


def test_requests_of_no_budget_are_not_dealt_and_come_back_empty():
    requests = asked([0, 1, 1, 2], budget=[8, 0, 8, 0])
    prompts = Prompts(np.arange(12, dtype=np.int32).reshape(3, 4), np.array([3, 3, 4], np.int32))
    hand = deal(requests, 3, 2)
    spread, of_shards, place = dealt(hand, prompts, requests)
    assert sorted(of_shards.id[of_shards.budget > 0]) == [100, 102]
    assert place[[1, 3]].tolist() == [4, 4]
    assert of_shards.id[place[[0, 2]]].tolist() == [100, 102]
    assert (spread.lengths == 0).sum() == spread.lengths.size - 2


@pytest.mark.parametrize("seed", range(30))
def test_every_request_is_dealt_once_with_its_own_prompt_and_work_is_even(seed):
    rng = np.random.default_rng(seed)
    num_prompts, shards, num_requests = int(rng.integers(1, 40)), int(rng.integers(1, 9)), int(rng.integers(1, 300))
    prompt = rng.integers(num_prompts, size=num_requests)
    requests = asked(prompt, budget=rng.integers(3, size=num_requests), expected=rng.exponential(50, num_requests))
    prompts = Prompts(np.arange(num_prompts, dtype=np.int32)[:, None] + 7, np.ones(num_prompts, np.int32))
    hand = deal(requests, num_prompts, shards)
    spread, of_shards, place = dealt(hand, prompts, requests)
    live = np.flatnonzero(requests.budget > 0)
    assert sorted(hand.requests[hand.requests >= 0]) == live.tolist()
    assert len(hand.requests[0]) == -(-num_requests // shards)
    np.testing.assert_array_equal(of_shards.id[place[live]], requests.id[live])
    np.testing.assert_array_equal(of_shards.budget[place[live]], requests.budget[live])
    assert (place[requests.budget == 0] == hand.requests.size).all()
    own = of_shards.prompt.reshape(shards, -1) + np.arange(shards)[:, None] * hand.prompts.shape[1]
    np.testing.assert_array_equal(spread.tokens[own.reshape(-1)[place[live]], 0], prompt[live] + 7)
    work = np.where(hand.requests >= 0, np.maximum(requests.expected_length, 1)[hand.requests], 0).sum(axis=1)
    groups = [np.maximum(requests.expected_length, 1)[live][prompt[live] == i].sum() for i in range(num_prompts)]
    if len(live) < num_requests // 2:  # nothing but the work decides
        assert work.max() <= work.mean() + max(groups, default=0) + 1e-3


def test_one_shard_gets_the_longest_groups_first():
    hand = deal(asked([1, 0, 1], expected=[1, 5, 9]), 2, 1)
    assert hand.prompts.tolist() == [[1, 0]]
    assert hand.requests.tolist() == [[2, 0, 1]]


ON_A_MESH = """
    import json, re, sys
    import jax, numpy as np
    from lilo_jax.device.inference import InferenceSettings, build_inference
    from lilo_jax.device.layout import weights_layout
    from lilo_jax.device.mesh import AXES, put_replicated, put_rows, engine_shards
    from lilo_jax.planning.collectives import traffic
    from lilo_jax.sampling.dealing import deal, dealt
    from lilo_jax.models.decoder import DecoderConfig
    from lilo_jax.models.lora import LoraConfig, combine, init_adapters
    from lilo_jax.sampling.settings import RolloutConfig
    from lilo_jax.sampling.stopping import stop_table
    from lilo_jax.sampling.token_choice import TokenRule
    from lilo_jax.types import Prompts, Requests
    from jax.sharding import AxisType, Mesh

    config = DecoderConfig(num_layers=2, vocab_size=48, num_heads=4, num_kv_heads=2, **json.loads(sys.argv[1]))
    rng = np.random.default_rng(0)
    N, P, C = 10, 80, 40
    lengths = rng.integers(2, P + 1, N).astype(np.int32)
    tokens = rng.integers(3, 48, (N, P)).astype(np.int32)
    prompt = np.sort(rng.integers(N, size=57)).astype(np.int32)
    requests = Requests(
        prompt=prompt, prefix_length=(lengths[prompt] - rng.integers(2, size=57)).astype(np.int32),
        id=np.arange(57, dtype=np.int32), budget=np.where(np.arange(57) % 9, C, 0).astype(np.int32),
        expected_length=rng.random(57).astype(np.float32) * C,
    )
    names = ["a", "b", "c"] + [chr(i) for i in range(200, 245)]
    results = {}
    for shape in ((1, 1, 1, 1), (8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 1, 2), (1, 2, 2, 2)):
        size = int(np.prod(shape))
        mesh = Mesh(np.array(jax.devices()[:size]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 4)
        settings = InferenceSettings(config, RolloutConfig(prefill_tokens=128), (1, 2), 48)
        programs = build_inference(settings, mesh)
        init = jax.jit(programs.model.init)
        params = jax.device_get(init(jax.random.key(0)))
        adapters = jax.device_get(init_adapters(programs.model, LoraConfig(rank=2), jax.random.key(1)))
        layout = weights_layout(mesh, programs.model.axes, params)
        placed = jax.tree.map(jax.device_put, params, layout)
        if "adapters" in sys.argv:
            adapters = jax.tree.map(lambda x: x + 0.1, adapters)
            placed = combine(placed, adapters, 0.5)
        how = dict(rule=TokenRule(), max_new_tokens=C, slots=16)
        key = jax.random.key(7)
        found = jax.device_get(programs.sample(placed, Prompts(tokens, lengths), requests, key, **how))
        assert (found.lengths > 0).sum() == (requests.budget > 0).sum()
        hand = deal(requests, N, engine_shards(mesh))
        own_prompts, own_requests, place = dealt(hand, Prompts(tokens, lengths), requests)
        compiled = programs.sample.program.lower(
            placed, put_rows(mesh, own_prompts, "requests"), put_rows(mesh, own_requests, "requests"),
            put_replicated(mesh, place), key, None,
            rule=TokenRule(), max_new_tokens=C, slots=-(-16 // engine_shards(mesh)), max_length=0,
        ).compile()
        results[str(shape)] = {
            "moved_in_loops": [loop.calls for loop in traffic(compiled.as_text())[1:]],
            "tokens": found.tokens.tolist(), "lengths": found.lengths.tolist(), "ended": found.ended.tolist(),
            "logprobs": found.logprobs.tolist(),
        }
    print(json.dumps(results))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "adapters"), [({}, []), ({"tie_embeddings": True, "decode_layers": "scanned"}, ["adapters"])]
)
def test_tokens_do_not_depend_on_the_mesh(model, adapters):
    found = json.loads(printed_by(ON_A_MESH, json.dumps(model), *adapters, devices=8).splitlines()[-1])
    one = found.pop("(1, 1, 1, 1)")
    assert len(set(one["lengths"])) > 5  # some end early, some are never begun: slots are refilled at different times
    assert len(found) == 4
    for shape, other in found.items():
        assert other["tokens"] == one["tokens"], shape
        assert (other["lengths"], other["ended"]) == (one["lengths"], one["ended"]), shape
        np.testing.assert_allclose(other["logprobs"], one["logprobs"], atol=1e-5, err_msg=shape)
        if shape.endswith("1)"):  # without tensor no shard waits for another: 1024 turns cost no message
            assert other["moved_in_loops"] == [], shape
