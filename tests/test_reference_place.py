"""A reference that lies in the memory of the host while nothing is scored by it: the same steps as on the device."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from test_contract import CONFIG, assembly_of, host_copy, start, take_step  # noqa: F401  (`start` is a fixture)

from lilo_jax import config as configuration
from lilo_jax.device.reference import HOST_MEMORY, check_place
from lilo_jax.planning.compiling import held
from lilo_jax.rl.grpo import Grpo
from lilo_jax.storage.checkpoints import Checkpoints
from lilo_jax.training import plan

WITH_REFERENCE = configuration.replace(CONFIG, algorithm=Grpo(kl_coefficient=0.5))


def placed(place):
    return configuration.replace(WITH_REFERENCE, model__reference_place=place)


def memories(tree):
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}


@pytest.mark.slow
def test_the_host_keeps_the_reference_and_steps_stay_the_same(start, tmp_path):  # noqa: F811
    found = {}
    for place in ("device", "host"):
        assembly = assembly_of(placed(place))
        state = start(assembly)
        reference = host_copy(state.reference)
        for step in range(2):
            batch, state = take_step(assembly, state, step)[2:4]
        jax.tree.map(np.testing.assert_array_equal, host_copy(state.reference), reference)
        assert (memories(state.reference) == {HOST_MEMORY}) == (place == "host")
        assert HOST_MEMORY not in memories(state.policy)
        found[place] = batch, host_copy(state.policy)
        assert np.abs(batch.reference_logprobs - batch.old_logprobs).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, found["host"], found["device"])
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(2, state, {})
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        restored = checkpoints.restore(2, assembly.programs.state)
    assert memories(restored.reference) == {HOST_MEMORY}
    jax.tree.map(np.testing.assert_array_equal, host_copy(restored.reference), reference)


def test_a_device_that_cannot_read_its_host_is_refused_in_a_sentence():
    old = SimpleNamespace(device_kind="old", addressable_memories=lambda: [SimpleNamespace(kind="device")])
    check_place("device", old)
    check_place("host", jax.local_devices()[0])
    with pytest.raises(ValueError, match="old has none of the kind pinned_host: leave it out"):
        check_place("host", old)


def test_what_lies_on_the_host_is_counted_there():
    states = {place: assembly_of(placed(place)).programs.state for place in ("device", "host")}
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(states["host"].reference))
    assert held(states["device"]) - held(states["host"]) == size == held(states["host"], on_host=True)
    assert held(states["device"], on_host=True) == 0
    planned = {
        place: plan.plan_bytes(configuration.replace(placed(place), model__vocab_size=64, sft__steps=0), 16)
        for place in states
    }
    saved = planned["device"]["weights"] - planned["host"]["weights"]
    assert saved == 4 * plan.weight_count(configuration.replace(CONFIG, model__vocab_size=64).model)
