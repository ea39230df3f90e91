"""Attention kernels against NumPy and against each other: values and gradients, grouped heads, packed rows, shards."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from virtual_devices import printed_by

from lilo_jax.models.attention import (
    attend_sequence,
    attention_kernel,
    cudnn,
    on_shards,
    reference,
    sequence_attention,
    shares_prompts,
    splash,
)
from lilo_jax.models.segments import PLAIN, Segments, View

INTERPRETED = functools.partial(splash, interpret=True)


def arrays(batch=2, slots=150, heads=4, kv_heads=2, dim=16, packed=True, dtype=np.float32):
    rng = np.random.default_rng(slots)
    query, key, value, weight = (
        jnp.asarray(rng.standard_normal((batch, slots, n, dim)), dtype) for n in (heads, kv_heads, kv_heads, heads)
    )
    own = np.sort(rng.integers(0, 4, (batch, slots)), axis=1).astype(np.int32)
    segments = {False: None, True: side_by_side(own), "shared": continuing(own)}[packed]
    return query, key, value, segments, weight


def side_by_side(own):
    """Segments that continue no other, numbered as they come."""
    first = np.array([[np.flatnonzero(row == segment)[0] for segment in row] for row in own])
    return Segments(own, (np.arange(own.shape[1])[None] - first).astype(np.int32))


CONTINUED = {0: (0,), 1: (0, 1), 2: (0, 1, 2), 3: (0, 3)}
"""What `continuing` lets a segment see."""


def continuing(own):
    """Segments of which the second and the last continue the first, and the third the second."""
    tokens = [np.sum(own == segment, axis=1, keepdims=True) for segment in range(4)]
    begins = np.select([own == 1, own == 2, own == 3], [tokens[0], tokens[0] + tokens[1], tokens[0]], 0)
    positions = (side_by_side(own).positions + begins).astype(np.int32)
    return Segments(own, positions, np.array([3, 2, 2, 3], np.int32)[own])


def numpy_attention(query, key, value, segments, view=PLAIN):
    """One query at a time: the softmax over what it sees, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    mixed = np.zeros(query.shape)
    for row, slot, head in np.ndindex(query.shape[:3]):
        seen = before = np.arange(slot + 1)
        if segments is not None:
            own, before = segments.own[row, : slot + 1], segments.positions[row]
            seen = seen[np.isin(own, own[slot] if segments.last is None else CONTINUED[own[slot]])]
        if view.window:
            seen = seen[before[seen] > before[slot] - view.window]
        shared = head // (query.shape[2] // key.shape[2])
        scores = key[row, seen, shared] @ query[row, slot, head] / np.sqrt(query.shape[3])
        weights = np.exp(view.softcap * np.tanh(scores / view.softcap) if view.softcap else scores)
        mixed[row, slot, head] = weights @ value[row, seen, shared] / weights.sum()
    return mixed


def value_and_gradients(attend, query, key, value, segments, weight, view=PLAIN):
    def weighted(query, key, value):
        mixed = attend(query, key, value, segments, view)
        return jnp.sum((mixed * weight).astype(jnp.float32)), mixed

    gradients, mixed = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(query, key, value)
    return mixed, *gradients


# ------------------------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize("packed", [False, True, "shared"])
@pytest.mark.parametrize("attend", [reference, attend_sequence])
def test_attention_equals_numpy(attend, packed):
    query, key, value, segments, _ = arrays(slots=70, heads=6, kv_heads=2, dim=8, packed=packed)
    found = jax.jit(attend)(query, key, value, segments)
    np.testing.assert_allclose(found, numpy_attention(query, key, value, segments), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attend", "sizes"),
    [
        (attend_sequence, {"slots": 1, "kv_heads": 1}),
        (attend_sequence, {"slots": 64, "kv_heads": 4}),
        (attend_sequence, {"slots": 150}),
        (attend_sequence, {"slots": 600, "packed": False}),  # eight blocks of 75
        (attend_sequence, {"slots": 150, "packed": "shared"}),
        (INTERPRETED, {"slots": 200, "dim": 64}),
        (INTERPRETED, {"slots": 128, "kv_heads": 1, "dim": 128, "packed": False}),
        (INTERPRETED, {"slots": 640, "heads": 2, "kv_heads": 2, "dim": 64, "batch": 1}),  # two blocks of 384
    ],
    ids=lambda x: "splash" if x is INTERPRETED else getattr(x, "__name__", str(x)),
)
def test_kernels_equal_the_reference_in_value_and_gradient(attend, sizes):
    given = arrays(**sizes)
    for found, expected in zip(
        value_and_gradients(attend, *given), value_and_gradients(reference, *given), strict=True
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=3e-5)


VIEWS = [View(window=1), View(window=9), View(window=200), View(softcap=1.5), View(window=40, softcap=0.7)]


@pytest.mark.parametrize("packed", [False, True, "shared"])
@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("attend", [reference, attend_sequence])
def test_windows_and_caps_equal_numpy(attend, view, packed):
    query, key, value, segments, _ = arrays(slots=150, heads=4, kv_heads=2, dim=8, packed=packed)
    found = jax.jit(functools.partial(attend, view=view))(query, key, value, segments)
    np.testing.assert_allclose(found, numpy_attention(query, key, value, segments, view), atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attend", "sizes"),
    [
        (attend_sequence, {"slots": 600, "packed": False}),
        (attend_sequence, {"slots": 150, "packed": "shared"}),
        (INTERPRETED, {"slots": 200, "dim": 64}),
        (INTERPRETED, {"slots": 640, "heads": 2, "kv_heads": 2, "dim": 64, "batch": 1}),
    ],
    ids=["xla", "xla with shared segments", "splash", "splash in two blocks"],
)
@pytest.mark.parametrize("view", VIEWS[1:], ids=str)
def test_kernels_agree_about_windows_and_caps_in_value_and_gradient(attend, sizes, view):
    given = arrays(**sizes)
    for found, expected in zip(
        value_and_gradients(attend, *given, view), value_and_gradients(reference, *given, view), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize("attend", [attend_sequence, INTERPRETED], ids=["xla", "splash"])
def test_bfloat16_stays_near_float32(attend):
    """The softmax is in float32: errors are those of rounding inputs and outputs to 8 bits."""
    query, key, value, segments, _ = arrays(slots=128, dim=64, dtype=jnp.bfloat16)
    found = jax.jit(attend)(query, key, value, segments)
    assert found.dtype == jnp.bfloat16
    expected = jax.jit(reference)(*(x.astype(jnp.float32) for x in (query, key, value)), segments)
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=0.03)


@pytest.mark.parametrize("attend", [attend_sequence, INTERPRETED], ids=["xla", "splash"])
def test_packed_sequences_and_what_follows_do_not_matter(attend):
    """Rows of two sequences equal the sequences alone, and later tokens change nothing earlier."""
    query, key, value, _, _ = arrays(slots=160, dim=64)
    segments = side_by_side(np.repeat([[0] * 90 + [1] * 70], 2, axis=0).astype(np.int32))
    attend = jax.jit(attend)
    packed = attend(query, key, value, segments)
    for part in (slice(0, 90), slice(90, 160)):
        alone = attend(query[:, part], key[:, part], value[:, part], None)
        np.testing.assert_allclose(packed[:, part], alone, atol=2e-6)


def test_cudnn_hands_packed_rows_to_xla():
    query, key, value, segments, _ = arrays(slots=20)
    np.testing.assert_array_equal(cudnn(query, key, value, segments), attend_sequence(query, key, value, segments))


# ---------------------------------------------------------------------------------------------------------- selection
@pytest.mark.parametrize(
    ("platform", "dtype", "head_dim", "expected"),
    [
        ("cpu", "float32", 16, "xla"),
        ("cpu", "bfloat16", 128, "xla"),
        ("tpu", "bfloat16", 128, "splash"),
        ("tpu", "float32", 64, "splash"),
        ("tpu", "bfloat16", 80, "xla"),
        ("gpu", "bfloat16", 128, "cudnn"),
        ("gpu", "bfloat16", 80, "cudnn"),
        ("gpu", "bfloat16", 256, "xla"),
        ("gpu", "float32", 64, "xla"),
    ],
)
def test_auto_takes_the_fastest_kernel_that_can_run(platform, dtype, head_dim, expected):
    where = {"platform": platform, "dtype": dtype, "head_dim": head_dim}
    assert attention_kernel("auto", **where) == expected
    for choice in ("xla", "reference", expected):
        assert attention_kernel(choice, **where) == choice


def test_splash_alone_knows_no_segments_that_continue_others():
    assert [name for name in ("xla", "splash", "cudnn", "reference") if not shares_prompts(name)] == ["splash"]


def test_windows_and_caps_are_not_for_cudnn():
    where = {"platform": "gpu", "dtype": "bfloat16", "head_dim": 64, "plain": False}
    assert attention_kernel("auto", **where) == "xla"
    assert attention_kernel("auto", **where | {"platform": "tpu"}) == "splash"
    with pytest.raises(ValueError, match="knows no windows and no capped scores"):
        attention_kernel("cudnn", **where)


@pytest.mark.parametrize(
    ("choice", "platform", "dtype", "head_dim", "message"),
    [
        ("splash", "cpu", "float32", 64, '"splash" needs a TPU, not cpu: choose "auto"'),
        ("splash", "tpu", "float32", 16, "multiple of 64, not 16"),
        ("cudnn", "tpu", "bfloat16", 64, '"cudnn" needs a GPU, not tpu'),
        ("cudnn", "gpu", "float32", 64, "needs bfloat16, not float32"),
        ("cudnn", "gpu", "bfloat16", 192, "not 192"),
    ],
)
def test_a_kernel_that_cannot_run_says_why(choice, platform, dtype, head_dim, message):
    with pytest.raises(ValueError, match=message):
        attention_kernel(choice, platform=platform, dtype=dtype, head_dim=head_dim)


def test_every_kernel_has_its_function():
    assert [sequence_attention(name) for name in ("xla", "splash", "cudnn", "reference")] == [
        attend_sequence,
        splash,
        cudnn,
        reference,
    ]
    assert sequence_attention("xla", lambda *_: None) is attend_sequence
    assert sequence_attention("splash", sharding := lambda *_: None).args == (splash, sharding)
    assert sequence_attention("splash", sharding).func is on_shards


# ------------------------------------------------------------------------------------------------------------- shards
@pytest.mark.slow
def test_each_device_attends_to_its_own_rows_and_heads():
    """Four devices, rows over two and heads over two (one key head stays whole): equal to the reference."""
    printed_by(
        """
        import functools
        import jax, jax.numpy as jnp, numpy as np
        from lilo_jax.device.mesh import MeshConfig, make_mesh, sharding
        from lilo_jax.models.attention import on_shards, reference, splash
        from lilo_jax.models.segments import Segments

        layout = functools.partial(sharding, make_mesh(MeshConfig(data=1, fsdp=2, tensor=2)))
        attend = functools.partial(on_shards, functools.partial(splash, interpret=True), layout)
        rng = np.random.default_rng(0)
        for kv_heads, packed in ((2, True), (1, False)):
            query, key, value = (
                rng.standard_normal((2, 130, n, 64)).astype(np.float32) for n in (4, kv_heads, kv_heads)
            )
            own = np.sort(rng.integers(0, 2, (2, 130)), axis=1).astype(np.int32)
            positions = np.broadcast_to(np.arange(130, dtype=np.int32), own.shape)  # differences alone matter
            segments = Segments(own, positions) if packed else None
            run = lambda f: jax.jit(jax.grad(lambda *a: jnp.sum(f(*a, segments) ** 2), argnums=(0, 1, 2)))
            for found, expected in zip(run(attend)(query, key, value), run(reference)(query, key, value)):
                np.testing.assert_allclose(found, expected, atol=3e-5)
            found = jax.jit(lambda *a: attend(*a, segments))(query, key, value)
            split = str(found.sharding.spec)
            assert "fsdp" in split, split
            assert ("tensor" in split) == (kv_heads == 2), split
        """,
        devices=4,
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="compiling for a TPU needs libtpu")
def test_splash_compiles_for_a_tpu(monkeypatch):
    """Forward and backward for a described v5e slice of four chips, packed and not, with rows and heads split."""
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    printed_by(
        """
        import functools
        import jax, jax.numpy as jnp, numpy as np
        from jax.experimental import topologies
        from lilo_jax.device.mesh import AXES, sharding
        from lilo_jax.models.attention import attention_kernel, sequence_attention
        from lilo_jax.models.segments import PLAIN, Segments, View

        devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
        mesh = jax.sharding.Mesh(np.array(devices).reshape(1, 2, 1, 2), AXES)
        layout = functools.partial(sharding, mesh)
        cases = (
            (64, "bfloat16", True, PLAIN),
            (128, "float32", False, PLAIN),
            (128, "bfloat16", False, View(window=100, softcap=50.0)),
        )
        for dim, dtype, packed, view in cases:
            kernel = attention_kernel("auto", platform=mesh.devices.flat[0].platform, dtype=dtype, head_dim=dim)
            attend = sequence_attention(kernel, layout)

            def loss(query, key, value, segments):
                return jnp.sum(attend(query, key, value, segments, view).astype(jnp.float32))

            def shape(*sizes, dtype=dtype):
                axes = ("rows", None, "kv_heads", None)[: len(sizes)]
                return jax.ShapeDtypeStruct(sizes, dtype, sharding=layout(axes, sizes))

            segments = Segments(*[shape(4, 192, dtype="int32")] * 2) if packed else None
            heads = [shape(4, 192, n, dim) for n in (8, 4, 4)]
            compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*heads, segments).compile()
            assert compiled.as_text().count("tpu_custom_call") >= 3  # forward, and two passes backward
        """,
        devices=1,
    )
