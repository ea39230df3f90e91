"""The device mesh: its errors and rules here, and runs on eight simulated devices in processes of their own."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from curriculum_simulation import proposed
from jax.sharding import AbstractMesh, PartitionSpec
from virtual_devices import environment, printed_by

from lilo_jax import config as configuration
from lilo_jax.bounds import check
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.selectors import top_k
from lilo_jax.device.mesh import (
    AXES,
    MeshConfig,
    constrainer,
    make_mesh,
    mesh_shape,
    put_replicated,
    put_rows,
    sharding,
    unconstrained,
)
from lilo_jax.errors import UsageError
from lilo_jax.keys import stream_key
from lilo_jax.models.lora import LoraConfig
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.types import GroupStatistics


# ------------------------------------------------------------------------------------------------------------- shape
@pytest.mark.parametrize(
    ("config", "devices", "shape"),
    [
        (MeshConfig(), 1, (1, 1, 1, 1)),
        (MeshConfig(), 8, (8, 1, 1, 1)),
        (MeshConfig(fsdp=4), 8, (2, 4, 1, 1)),
        (MeshConfig(fsdp=2, sequence=2), 8, (2, 2, 2, 1)),
        (MeshConfig(data=2, fsdp=2, tensor=2), 8, (2, 2, 1, 2)),
        (MeshConfig(tensor=8), 8, (1, 1, 1, 8)),
    ],
)
def test_data_takes_the_devices_that_are_left(config, devices, shape):
    assert mesh_shape(config, devices) == shape


@pytest.mark.parametrize(
    ("config", "devices"),
    [
        (MeshConfig(data=2), 8),
        (MeshConfig(fsdp=3), 8),
        (MeshConfig(tensor=16), 8),
        (MeshConfig(sequence=3), 8),
        (MeshConfig(data=4, fsdp=2, tensor=2), 8),
        (MeshConfig(data=2, fsdp=2, tensor=2), 1),
    ],
)
def test_sizes_that_do_not_make_the_devices_name_the_cure(config, devices):
    with pytest.raises(ValueError, match=rf"does not make the {devices} devices.* --mesh.data 0"):
        mesh_shape(config, devices)


@pytest.mark.parametrize("config", [MeshConfig(fsdp=0), MeshConfig(tensor=0), MeshConfig(data=-1), MeshConfig(fsdp=-2)])
def test_sizes_must_be_positive(config):
    with pytest.raises(UsageError, match="must be at least"):
        check(config)


# --------------------------------------------------------------------------------------------------------- sharding
def spec(mesh_sizes, axes, shape) -> PartitionSpec:
    return sharding(AbstractMesh(mesh_sizes, AXES), axes, shape).spec


def test_rules_spread_rows_weights_and_heads():
    sizes = (2, 2, 1, 2)
    assert spec(sizes, ("rows", None), (8, 5)) == PartitionSpec(("data", "fsdp"), None)
    assert spec(sizes, ("embed", "mlp"), (8, 6)) == PartitionSpec(("fsdp", "sequence"), ("tensor",))
    assert spec(sizes, ("layers", "embed", "kv_heads", "head_dim"), (2, 4, 2, 8)) == PartitionSpec(
        None, ("fsdp", "sequence"), ("tensor",), None
    )
    assert spec(sizes, ("vocab", "embed"), (10, 4)) == PartitionSpec(("tensor",), ("fsdp", "sequence"))
    assert spec(sizes, (), ()) == PartitionSpec()


def test_an_axis_that_does_not_divide_stays_whole():
    sizes = (2, 2, 1, 4)
    assert spec(sizes, ("rows", None), (6, 5)) == PartitionSpec(None, None)
    assert spec(sizes, ("embed", "kv_heads", "head_dim"), (4, 2, 8)) == PartitionSpec(("fsdp", "sequence"), None, None)
    assert spec(sizes, ("vocab", "embed"), (18, 3)) == PartitionSpec(None, None)


def test_sharding_wants_a_name_per_dimension_and_knows_its_names():
    with pytest.raises(ValueError, match="zip"):
        spec((1, 1, 1, 1), ("rows",), (8, 5))
    with pytest.raises(KeyError):
        spec((1, 1, 1, 1), ("colour",), (8,))


def test_placing_on_one_device_keeps_values():
    mesh = make_mesh(MeshConfig())
    tree = {"a": np.arange(6).reshape(3, 2), "b": np.float32(2), "c": np.zeros((0, 3))}
    for placed in (put_rows(mesh, tree), put_replicated(mesh, tree)):
        jax.tree.map(np.testing.assert_array_equal, placed, tree)
        assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(placed))
    x = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(jax.jit(lambda x: constrainer(mesh)(x, "rows", None) * 2)(x), 2 * x)
    assert unconstrained(x, "rows", None) is x


# ---------------------------------------------------------------------------------------------------- eight devices
@pytest.fixture(scope="module")
def config(tiny_config, tiny_start):
    """A tiny run whose sizes eight devices divide."""
    return configuration.replace(
        tiny_config,
        num_steps=3,
        model__path=tiny_start,
        sft__steps=0,
        rollout__max_new_tokens=6,
        evaluation__every=3,
        evaluation__splits=("test",),
        update__minibatches=2,
        storage__save_every=3,
    )


def arguments(config: configuration.Config) -> list[str]:
    """The command line of what the tiny config changes."""
    found = []
    for group in ("task", "model", "lora", "sft", "rollout", "evaluation", "storage", "update"):
        settings, default = getattr(config, group), getattr(configuration.Config(), group)
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if value != getattr(default, field.name):
                values = map(str, value) if isinstance(value, tuple) else [str(value)]
                found += [f"--{group}.{field.name.replace('_', '-')}", *values]
    return ["--num-steps", str(config.num_steps), *found]


@pytest.fixture(scope="module", params=[LoraConfig(), LoraConfig(rank=2)], ids=["all weights", "adapters"])
def runs(request, config, tmp_path_factory):
    """{devices: (directory, stderr)} of the same run on one device and on eight, at the same time."""
    config = configuration.replace(config, lora=request.param)
    root = tmp_path_factory.mktemp("mesh")
    mesh = {1: [], 8: ["--mesh.fsdp", "2", "--mesh.sequence", "2", "--mesh.tensor", "2"]}
    processes = {}
    for devices, options in mesh.items():
        command = [sys.executable, "-m", "experiments.train", *arguments(config), *options]
        command += ["--output-dir", str(root / str(devices))]
        processes[devices] = subprocess.Popen(
            command, env=environment(devices), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    found = {}
    for devices, process in processes.items():
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
        found[devices] = RunDirectory(root / str(devices)), errors
    return found


@pytest.mark.slow
def test_eight_devices_take_the_same_steps_as_one(runs):
    (one, _), (eight, _) = runs[1], runs[8]
    assert len(json.loads((eight.path / "environment.json").read_text())["devices"]) == 8
    assert len(json.loads((one.path / "environment.json").read_text())["devices"]) == 1
    assert len(one.read("metrics")) == 3
    for found, expected in zip(eight.read("metrics"), one.read("metrics"), strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if value is None:  # nothing was measured, such as a variance explained where there is none
                assert found[name] is None, name
            else:
                assert found[name] == pytest.approx(value, abs=1e-5, rel=1e-4), name
        assert expected["policy/gradient_norm"] > 1e-4
    assert any(r["curriculum/collected_success_mean"] > 0 for r in one.read("metrics"))
    for found, expected in zip(eight.read("eval"), one.read("eval"), strict=True):
        assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-5)
    assert eight.read("ledger") == one.read("ledger")


@pytest.mark.slow
def test_eight_devices_draw_the_same_tokens_and_admit_the_same_groups(runs):
    assert runs[8][0].rollouts() == runs[1][0].rollouts()
    assert len(runs[1][0].rollouts()) == 3


@pytest.mark.slow
def test_no_array_is_gathered_whole_by_accident(runs):
    for _, errors in runs.values():
        assert "after 3 steps" in errors
        assert "Involuntary full rematerialization" not in errors


RULES = ("mopps", "mapp", "cdas", "bots", "frontier", "sec", "dump", "dapo", "greso", "pilot_commit")
"""Beliefs, predictions from features, a diverse set, bandits over categories, several rounds."""
EIGHT_DEVICES = """
    import functools, json, pathlib, sys
    import jax, numpy as np
    from curriculum_simulation import proposed
    from jax.sharding import AxisType, Mesh
    from lilo_jax import config as configuration
    from lilo_jax.training.assembly import assemble
    from lilo_jax.training.checks import check
    from lilo_jax.training.collection import collect, training_batch
    from lilo_jax.curriculum.features import no_facts
    from lilo_jax.curriculum.selectors import top_k
    from lilo_jax.keys import start_keys, stream_key
    from lilo_jax.device.mesh import AXES, make_mesh, put_replicated, put_rows
    from lilo_jax.storage.clock import PhaseClock
    from lilo_jax.types import GroupStatistics

    assert jax.device_count() == 8
    config = configuration.load(pathlib.Path(sys.argv[1]))
    statistics = np.load(sys.argv[2])
    assembly = assemble(config, check(config))
    programs, mesh = assembly.programs, assembly.mesh
    params = programs.init(stream_key(0, "init"))
    state = programs.start(params, None, start_keys(0), no_facts(len(assembly.pool.questions)))

    found = {"devices": mesh.devices.size, "admitted": [], "top": []}
    for trial in range(8):
        columns = {name: values[trial] for name, values in statistics.items()}
        collected = put_replicated(mesh, GroupStatistics(**columns))
        untouched = jax.tree.map(lambda x: x + 0, state.curriculum)  # it is given away
        admission, _ = programs.admit(untouched, collected, stream_key(1, "admit", trial), np.int32(0))
        found["admitted"].append([admission.indices.tolist(), admission.mask.tolist()])
        rows = put_rows(mesh, columns["successes"])
        assert len(rows.sharding.device_set) == 8 and not rows.sharding.is_fully_replicated
        found["top"].append(jax.jit(lambda x, k: top_k(x, k, k=5))(rows, stream_key(2, "top", trial))[0].tolist())

    groups = GroupStatistics(**{name: values[0] for name, values in statistics.items()})
    everywhere = functools.partial(put_replicated, mesh)
    found["proposed"] = {name: proposed(name, groups, everywhere) for name in sys.argv[3:]}

    def layout(tree):
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): [
                str(leaf.sharding.spec), list(leaf.shape), list(leaf.addressable_shards[0].data.shape),
                len(leaf.sharding.device_set),
            ]
            for path, leaf in leaves
        }

    found["before"] = layout(state)
    embedding = np.asarray(state.policy.params["trunk"]["embedding"])
    collected = collect(assembly.collector, state, assembly.policy(state), 0, PhaseClock())
    admission, remembered = programs.admit(
        state.curriculum, collected.statistics, stream_key(0, "admit", 0), np.int32(0)
    )
    state = state.replace(curriculum=remembered)
    batch = training_batch(assembly.collector, collected, jax.device_get(admission))
    batch = batch.replace(reward=np.arange(len(batch.reward), dtype=np.float32) % 2)
    batch, _ = programs.prepare(state, put_rows(mesh, batch))
    state, _ = programs.update(state, batch, stream_key(0, "update", 0))
    state, _ = programs.update(state, batch, stream_key(0, "update", 1))
    found["after"] = layout(state)
    found["moved"] = float(np.abs(np.asarray(state.policy.params["trunk"]["embedding"]) - embedding).max())
    found["steps"] = int(state.step)
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def statistics():
    """Eight sets of 16 groups with many ties, empty slots and groups without attempts."""
    rng = np.random.default_rng(0)
    attempts = np.where(rng.random((8, 16)) < 0.1, 0, 4).astype(np.float32)
    successes = np.minimum(rng.integers(5, size=(8, 16)), attempts).astype(np.float32)
    question = np.stack([rng.permutation(64)[:16] for _ in range(8)]).astype(np.int32)
    question[:, -1], attempts[:, -1], successes[:, -1] = -1, 0, 0
    zeros = np.zeros((8, 16), np.float32)
    return GroupStatistics(
        place=question,
        round=np.where(question >= 0, 0, -1).astype(np.int32),
        attempts=attempts,
        successes=successes,
        reward_sum=successes,
        length_sum=zeros,
        rollouts=attempts,
    )


@pytest.fixture(scope="module")
def eight_devices(config, statistics, tmp_path_factory):
    """What a process with eight devices, 2 x 2 x 2, reports."""
    root = tmp_path_factory.mktemp("eight")
    config = configuration.replace(config, mesh=MeshConfig(data=2, fsdp=2, tensor=2), optimizer__warmup_steps=0)
    (root / "config.json").write_text(json.dumps(configuration.to_dict(config)))
    np.savez(root / "statistics.npz", **{f.name: getattr(statistics, f.name) for f in dataclasses.fields(statistics)})
    printed = printed_by(EIGHT_DEVICES, root / "config.json", root / "statistics.npz", *RULES, devices=8)
    found = json.loads(printed.splitlines()[-1])
    assert found["devices"] == 8
    return found


@pytest.mark.slow
def test_selection_picks_the_same_groups_on_one_and_on_eight_devices(statistics, eight_devices):
    curriculum = Lilo().build(pool_size=64, questions=4, samples=4)
    admit = jax.jit(curriculum.admit)
    top = jax.jit(lambda x, key: top_k(x, key, k=5))
    for trial in range(8):
        one = jax.tree.map(lambda x, t=trial: x[t], statistics)
        admission = admit(curriculum.init(no_facts(64)), one, stream_key(1, "admit", trial))
        assert eight_devices["admitted"][trial] == [admission.indices.tolist(), admission.mask.tolist()]
        assert admission.mask.all()
        assert eight_devices["top"][trial] == top(one.successes, stream_key(2, "top", trial))[0].tolist()
    assert len({str(picked) for picked in eight_devices["admitted"]}) == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_rules_propose_the_same_questions_on_one_and_on_eight_devices(name, statistics, eight_devices):
    expected = proposed(name, jax.tree.map(lambda x: x[0], statistics))
    assert all(any(mask) for _, mask in expected)
    assert eight_devices["proposed"][name] == expected


@pytest.mark.slow
def test_updates_leave_every_array_where_it_was(eight_devices):
    assert eight_devices["steps"] == 2
    assert eight_devices["moved"] > 1e-5
    assert eight_devices["after"] == eight_devices["before"]
    assert all(devices == 8 for *_, devices in eight_devices["before"].values())


@pytest.mark.slow
def test_weights_and_moments_are_split(eight_devices):
    """A matrix of width and heads, or width and MLP, is in four pieces; moments lie as their weights do."""
    layout = eight_devices["before"]
    for prefix in ("policy/params/", "critic/params/", "reference/"):
        for name in ("attention/query", "attention/key", "attention/output", "mlp/gate", "mlp/down"):
            _, shape, shard, _ = layout[f"{prefix}trunk/layers/{name}"]
            assert np.prod(shape) == 4 * np.prod(shard)
        _, shape, shard, _ = layout[f"{prefix}trunk/embedding"]
        assert np.prod(shape) == 4 * np.prod(shard)
    moments = {
        name: entry
        for name, entry in layout.items()
        if name.endswith(("mu/trunk/layers/mlp/gate", "nu/trunk/layers/mlp/gate"))
    }
    assert len(moments) == 4
    assert all(entry == layout["policy/params/trunk/layers/mlp/gate"] for entry in moments.values())
    assert all(shape == shard for name, (_, shape, shard, _) in layout.items() if name.startswith("curriculum/"))
