"""Rows whose tokens are split: attention by blocks against the definition, and eight devices against one."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attention import arrays, value_and_gradients
from virtual_devices import printed_by

from lilo_jax.models.attention import attend_sequence, attention_kernel, reference
from lilo_jax.models.blockwise import blockwise
from lilo_jax.models.segments import PLAIN, Segments, View

BLOCKS = functools.partial(blockwise, block=32)


# ------------------------------------------------------------------------------------------------------------- blocks
@pytest.mark.parametrize(
    ("view", "packed"), [(PLAIN, False), (View(window=40, softcap=0.7), True), (View(window=40), "shared")]
)
def test_blocks_equal_the_definition_in_value_and_gradient(view, packed):
    given = arrays(slots=150, packed=packed)  # five blocks, the last of which is filled up
    expected = value_and_gradients(reference, *given, view)
    for found, right in zip(value_and_gradients(BLOCKS, *given, view), expected, strict=True):
        np.testing.assert_allclose(found, right, atol=5e-5)


def test_queries_that_begin_inside_a_row_see_what_they_see_in_the_whole():
    query, key, value, segments, _ = arrays(slots=150, packed="shared")
    whole = reference(query, key, value, segments, View(window=50))
    inside = jax.jit(functools.partial(BLOCKS, view=View(window=50)))
    found = inside(query[:, 70:121], key, value, segments, first=jnp.int32(70))
    np.testing.assert_allclose(found, whole[:, 70:121], atol=2e-6)


def test_places_without_a_token_give_zeros_and_leave_gradients_finite():
    query, key, value, _, weight = arrays(slots=64, packed=False)
    own = np.full((2, 64), -1, np.int32)
    own[:, :40] = 0
    alone = Segments(own, np.broadcast_to(np.arange(64, dtype=np.int32), own.shape))
    for found in value_and_gradients(BLOCKS, query, key, value, alone, weight):
        assert np.isfinite(found).all()


def test_long_rows_have_no_matrix_of_all_scores():
    """Of 16,384 tokens: all scores of a head would be 1 GiB; value and gradient take a sixteenth of it."""
    shape = jax.ShapeDtypeStruct((1, 16_384, 1, 16), jnp.float32)
    weighted = lambda *given: jnp.sum(attend_sequence(*given, None))  # noqa: E731
    compiled = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**26


# ------------------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(("kernel", "platform"), [("cudnn", "gpu"), ("reference", "cpu")])
def test_kernels_that_know_no_split_rows_are_refused_in_a_sentence(kernel, platform):
    where = {"platform": platform, "dtype": "bfloat16", "head_dim": 64, "split": True}
    assert attention_kernel("auto", **where) == "xla"
    with pytest.raises(ValueError, match=r'knows no rows whose tokens are split \(--mesh.sequence\): choose "auto"'):
        attention_kernel(kernel, **where)


# ------------------------------------------------------------------------------------------------------- eight devices
SCORES = """
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, Mesh
    from lilo_jax.device.inference import model_on
    from lilo_jax.device.layout import weights_layout
    from lilo_jax.device.mesh import AXES, put_replicated, put_rows
    from lilo_jax.models.decoder import DecoderConfig
    from lilo_jax.models.packing import pack_blocks, packed
    from lilo_jax.models.scoring import score
    from lilo_jax.types import Sequences

    rng = np.random.default_rng(0)
    rows, P, C = 8, 50, 83
    tokens = np.concatenate(
        [np.repeat(rng.integers(3, 48, size=(2, P)), 4, axis=0), rng.integers(3, 48, size=(rows, C))], axis=1
    ).astype(np.int32)
    sequences = Sequences(tokens, np.full(rows, P, np.int32), rng.integers(1, 16, rows).astype(np.int32))
    weight = rng.normal(size=(rows, C)).astype(np.float32)
    plain = dict(num_layers=2, vocab_size=48, num_heads=4, num_kv_heads=2, embed_dim=48, train_layers="scanned")
    cases = {
        "one sequence a row": (plain | {"remat": "layers"}, None),
        "windows, packed": (plain | {"windows": (40, 0), "attention_softcap": 2.0}, False),
        "shared prompts": (plain, True),
    }
    results = {}
    for name, (shape, share) in cases.items():
        config = DecoderConfig(**shape)
        for sizes in ((1, 1, 1, 1), (1, 2, 2, 2), (1, 1, 8, 1))[: 2 + (share is None)]:
            devices = np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
            mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 4)
            model = model_on(config, mesh)
            if sizes == (1, 1, 1, 1):
                params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
            layout = weights_layout(mesh, model.axes, params)
            plan = None
            if share is not None:
                plan = put_replicated(mesh, pack_blocks(sequences, np.arange(rows), multiple=2, share=share))
                assert (plan.segments.last is not None) == share

            def loss(params, sequences, weight, plan):
                run = model if plan is None else packed(model, plan)
                found = score(run, params, sequences, completion_width=C, temperature=0.7, chunk=64)
                return jnp.sum(weight * (found.logprobs + 0.3 * found.entropy)), found

            placed = jax.tree.map(jax.device_put, params, layout)
            program = jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=(None, layout))
            (value, scores), gradient = program(placed, put_rows(mesh, sequences), put_rows(mesh, weight), plan)
            results[f"{name} {sizes}"] = {
                "logprobs": scores.logprobs.tolist(), "entropy": scores.entropy.tolist(), "value": float(value),
                "gradient": np.concatenate([np.ravel(g) for g in jax.tree.leaves(jax.device_get(gradient))]).tolist(),
            }
    states = jax.jit(model.hidden)(placed, np.zeros((8, 512), np.int32))
    results["states"] = states.addressable_shards[0].data.shape[:2]
    print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def scored():
    return json.loads(printed_by(SCORES, devices=8).splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "mesh"),
    [
        ("one sequence a row", "(1, 2, 2, 2)"),
        ("one sequence a row", "(1, 1, 8, 1)"),
        ("windows, packed", "(1, 2, 2, 2)"),
        ("shared prompts", "(1, 2, 2, 2)"),
    ],
)
def test_scores_and_gradients_are_those_of_one_device(scored, case, mesh):
    one, other = scored[f"{case} (1, 1, 1, 1)"], scored[f"{case} {mesh}"]
    assert np.abs(one["gradient"]).max() > 0.1
    for name in ("logprobs", "entropy", "value", "gradient"):
        largest = np.abs(one[name]).max()
        np.testing.assert_allclose(other[name], one[name], atol=1e-5 * max(largest, 1), rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_states_are_split_over_rows_and_tokens(scored):
    assert scored["states"] == [4, 256]


@pytest.mark.slow
def test_splash_knows_which_part_of_the_queries_a_device_has():
    """Four devices, tokens over two and heads over two, packed and not: equal to the reference."""
    printed_by(
        """
        import functools
        import jax, jax.numpy as jnp, numpy as np
        from lilo_jax.device.mesh import MeshConfig, make_mesh, sharding
        from lilo_jax.models.attention import on_parts, reference, splash_tables
        from lilo_jax.models.segments import PLAIN, Segments, View

        layout = functools.partial(sharding, make_mesh(MeshConfig(sequence=2, tensor=2)))
        attend = functools.partial(on_parts, functools.partial(splash_tables, interpret=True), layout)
        rng = np.random.default_rng(0)
        query, key, value = (rng.standard_normal((1, 256, n, 64)).astype(np.float32) for n in (4, 2, 2))
        own = np.repeat([[0, 1]], [90, 166], axis=1).astype(np.int32)
        positions = np.concatenate([np.arange(90), np.arange(166)])[None].astype(np.int32)
        for segments, view in ((Segments(own, positions), PLAIN), (None, View(window=70, softcap=2.0))):
            run = lambda f: jax.jit(jax.grad(lambda *a: jnp.sum(f(*a, segments, view) ** 2), argnums=(0, 1, 2)))
            for found, expected in zip(run(attend)(query, key, value), run(reference)(query, key, value)):
                np.testing.assert_allclose(found, expected, atol=3e-5)
            found = jax.jit(lambda *a: attend(*a, segments, view))(query, key, value)
            np.testing.assert_allclose(found, reference(query, key, value, segments, view), atol=3e-6)
            assert found.addressable_shards[0].data.shape == (1, 128, 2, 64)
        """,
        devices=4,
    )
