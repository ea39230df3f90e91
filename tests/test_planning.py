"""Plans: collectives read from a program's text, arguments as a run passes them, and whole plans for TPU slices."""

import json
import math
import os
import shlex
import subprocess
import sys

import jax
import pytest

from lilo_jax import config as configuration
from lilo_jax.device.mesh import MeshConfig, make_mesh
from lilo_jax.device.programs import build_programs
from lilo_jax.errors import UsageError
from lilo_jax.planning.arguments import Sizes, calls
from lilo_jax.planning.collectives import largest, size_of, traffic
from lilo_jax.planning.compiling import _too_large, held
from lilo_jax.planning.topology import described
from lilo_jax.rl.vineppo import VinePpo
from lilo_jax.training.assembly import program_settings

TEXT = """HloModule jit_f

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%known (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0} all-reduce(%x), channel_id=3, to_apply=%add
  ROOT %t = (s32[], f32[8]) tuple(%i, %r)
}

%unknown (p: (s32[], bf16[4,2])) -> (s32[], bf16[4,2]) {
  %g = bf16[4,2]{1,0} all-gather(%x), channel_id=4, dimensions={0}
  ROOT %t = (s32[], bf16[4,2]) tuple(%i, %g)
}

%fused_reduce-scatter (p: f32[64]) -> f32[16] {
  %r = f32[64]{0} all-reduce(%p), channel_id=9
  ROOT %d = f32[16]{0} dynamic-slice(%r, %i)
}

ENTRY %main (p: f32[64]) -> f32[64] {
  %w = (s32[], f32[8]) while(%t), condition=%c, body=%known, backend_config={"known_trip_count":{"n":"5"}}
  %v = (s32[], bf16[4,2]) while(%t), condition=%c, body=%unknown
  %s = f32[16]{0} fusion(%p), kind=kCustom, calls=%fused_reduce-scatter
  %one = f32[64]{0} all-gather-start(%s), channel_id=7, dimensions={0}
  %again = f32[64]{0} all-gather-start(%s), channel_id=7, dimensions={0}
  ROOT %o = f32[64]{0} all-gather-done(%one)
}
"""


def test_collectives_of_loops_count_as_often_as_they_run():
    once, loop = traffic(TEXT)
    assert once.calls == {"all-reduce": 5, "reduce-scatter": 1, "all-gather": 1}
    assert once.size == {"all-reduce": 5 * 32, "reduce-scatter": 64, "all-gather": 256}
    assert once.total == 5 * 32 + 64 + 256
    assert (loop.loop, loop.calls, loop.size) == ("v", {"all-gather": 1}, {"all-gather": 16})


@pytest.mark.parametrize(
    ("groups", "sent"),
    [
        ("{{0},{1},{2},{3}}", 0),
        ("[4,1]<=[4]", 0),
        ("mesh['a'=4,'b'=1,'c'=1] {'b','c'}", 0),
        ("{{0,1},{2,3}}", 32),
        ("[2,2]<=[4]", 32),
        ("mesh['a'=4,'b'=1] {'a','b'}", 32),
        ("mesh['a'=4] {'a':(1)2}", 32),
        ("{}", 32),
    ],
)
def test_a_collective_among_one_device_sends_nothing(groups, sent):
    line = f"  ROOT %r = f32[8]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, to_apply=%add"
    once, *loops = traffic(f"ENTRY %main (p: f32[8]) -> f32[8] {{\n{line}\n}}\n")
    assert (once.total, loops) == (sent, [])


def test_sizes_of_shapes():
    assert size_of("f32[]") == 4
    assert size_of("(bf16[2,3]{1,0}, s8[5])") == 17
    assert size_of("token[]") == 0
    assert largest(TEXT, 1) == [(256, "f32[64]", "all-gather-start")]


def test_what_the_compiler_says_of_a_program_that_does_not_fit():
    found = _too_large("sample", "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 122.04G of 95.74G hbm.\n\n"
        "Largest program allocations in hbm:\n\n  1. Size: 11.25G\n     Operator: op_name=\"jit(sampling)\"\n"
        "     Shape: bf16[30,512,32,1536]{3,2,1,0}\n     Unpadded size: 11.25G\n", "")  # fmt: skip
    assert (found.name, found.fits) == ("sample", False)
    assert found.peak == round(122.04 * 2**30)
    assert found.buffers == ("11.25 GiB bf16[30,512,32,1536]",)
    written = "%0 = f(%a, %b) : (tensor<1024x1024x512xbf16>, tensor<1024x1024x512xf32>, tensor<i32>) -> tensor<4xi1>"
    terse = "Ran out of memory on HBM, the total memory required for HLO temporaries (96.00G) exceeds"
    other = _too_large("update", terse, written)
    assert other.peak == 96 * 2**30
    assert other.buffers[:2] == ("2.00 GiB tensor<1024x1024x512xf32>", "1.00 GiB tensor<1024x1024x512xbf16>")


@pytest.fixture(scope="module")
def small(tiny_config):
    return configuration.replace(
        tiny_config,
        model__vocab_size=20,
        algorithm=VinePpo(),
        rollout__questions=8,
        rollout__samples=2,
        update__minibatches=1,
        update__microbatches=1,
    )


@pytest.fixture(scope="module")
def programs(small):
    settings = program_settings(small, vocabulary=20, end_ids=(1,), pool_size=40)
    return build_programs(settings, make_mesh(MeshConfig()))


def test_every_program_can_be_lowered_from_shapes_alone(small, programs):
    mesh = make_mesh(MeshConfig())
    found = calls(small, programs, mesh, Sizes(prompt=7, candidates=4, follow_ups=12))
    assert list(found) == ["sample", "follow_ups", "prepare", "update", "propose", "admit"]
    new = small.rollout.max_new_tokens
    for name, lower in found.items():
        shapes = [leaf.shape for leaf in jax.tree.leaves(lower().in_avals)]
        assert {"sample": (4, 7), "follow_ups": (16, 7 + new)}.get(name, ()) in [*shapes, ()], name
        if name in ("prepare", "update"):
            assert (16, 7 + new) in shapes


def test_bytes_of_the_state_are_those_of_its_arrays_by_hand(small, programs):
    state = programs.state
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.policy.params))
    assert held(state.policy.params) == 4 * weights
    moments = held(state.policy.optimizer)
    assert 8 * weights <= moments <= 8 * weights + 64  # two numbers a weight, and counters
    assert held(state) >= 12 * weights + 4 * weights  # and the reference


@pytest.mark.parametrize(
    ("name", "says"), [("v9:2x2", "unknown TPU generation"), ("v5e", "GENERATION:SHAPE, such as v5e:2x4")]
)
def test_a_name_that_is_no_slice_is_refused(name, says):
    with pytest.raises(UsageError, match=says):
        described(name, MeshConfig())


# ------------------------------------------------------------------------------------------ with the compiler for TPUs
SMALL = shlex.split("""--rollout.questions 16 --rollout.samples 4 --rollout.max-new-tokens 256 --curriculum uniform
    --algorithm ppo --model.num-layers 2 --model.embed-dim 512 --model.num-heads 8 --model.num-kv-heads 2
    --model.head-dim 128 --model.mlp-dim 1024 --model.vocab-size 1024 --model.compute-dtype bfloat16 --prompt 128
    --pool 100""")


def planned(*options, cache) -> subprocess.CompletedProcess:
    pytest.importorskip("libtpu")
    command = [sys.executable, "-m", "lilo_jax.cli", "plan", "train", *SMALL, *options]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_a_plan_by_the_compiler_agrees_with_arithmetic(cache):
    done = planned("--topology", "v5e:2x2", "--mesh.fsdp", "4", "--json", cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert list(found["programs"]) == ["sample", "prepare", "update", "propose", "admit"]
    layers = 2 * (512 * 128 * (2 * 8 + 2 * 2) + 3 * 512 * 1024 + 2 * 512)
    policy = 4 * (layers + 2 * 1024 * 512 + 512) / 4  # a quarter on each of four devices
    assert found["policy"] == pytest.approx(policy, rel=0.02)
    assert found["programs"]["sample"]["arguments"] == pytest.approx(policy, rel=0.02)
    update = found["programs"]["update"]
    assert update["aliased"] == pytest.approx(
        found["state"] - found["reference"], rel=0.02
    )  # given away, and written in place
    assert found["programs"]["sample"]["traffic"][1:] == []  # nothing is sent while tokens are drawn
    gathered = found["programs"]["sample"]["traffic"][0]["size"]["all-gather"]
    assert gathered == pytest.approx(2 * policy, rel=0.2)  # once, as bfloat16: half of four quarters
    again = planned("--topology", "v5e:2x2", "--mesh.fsdp", "4", "--json", cache=cache)
    assert json.loads(again.stdout) == found


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_its_buffers_and_another_setting_is_found(cache):
    large = ["--topology", "v5e:2x2", "--mesh.fsdp", "4", "--programs", "sample", "--rollout.samples", "64"]
    large += ["--rollout.max-new-tokens", "8192", "--update.microbatches", "16", "--model.num-kv-heads", "8"]
    done = planned(*large, cache=cache)
    assert done.returncode == 1
    assert "DOES NOT FIT" in done.stdout
    assert "v5e:2x2 has 15.8 GiB a device, and sample needs" in done.stderr
    assert "GiB tensor<" in done.stderr
    done = planned(*large, "--propose", cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "it fits with --rollout.slots" in done.stderr
    assert "DOES NOT FIT" not in done.stdout


@pytest.mark.slow
def test_sizes_that_the_mesh_does_not_divide_are_named(cache):
    done = planned("--topology", "v5e:2x2", "--mesh.tensor", "4", "--programs", "sample", cache=cache)
    assert (
        "--mesh.tensor 4 does not divide the 2 kv heads: keys, values and their cache are whole on each of 4 devices"
        in done.stdout
    )
    done = planned("--topology", "v5e:2x2", "--update.microbatches", "32", "--programs", "update", cache=cache)
    assert done.returncode == 2
    assert "can't be split over 4 row shards" in done.stderr
