"""Programs that run per row shard: equal to one device's on every mesh, and nothing sent inside their loops."""

import ast
import json

import jax.numpy as jnp
import numpy as np
import pytest
from virtual_devices import printed_by

MESHES = ["(8, 1, 1, 1)", "(1, 8, 1, 1)", "(2, 2, 1, 2)", "(1, 2, 2, 2)"]
SCORES = """
    import functools, json, re, sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, Mesh
    from lilo_jax.device.inference import model_on
    from lilo_jax.device.layout import weights_layout
    from lilo_jax.device.mesh import AXES, put_rows
    from lilo_jax.models.decoder import DecoderConfig
    from lilo_jax.models.scoring import score
    from lilo_jax.planning.collectives import traffic
    from lilo_jax.types import Sequences

    tied = sys.argv[1] == "tied"
    config = DecoderConfig(num_layers=2, vocab_size=48, num_heads=4, num_kv_heads=2, tie_embeddings=tied)
    rng = np.random.default_rng(0)
    results = {}
    for rows in (16, 12):  # eight shards divide the first
        sequences = Sequences(
            tokens=rng.integers(48, size=(rows, 20)).astype(np.int32),
            prompt_lengths=rng.integers(1, 9, rows).astype(np.int32),
            completion_lengths=rng.integers(0, 11, rows).astype(np.int32),
        )
        weight = rng.normal(size=(rows, 11)).astype(np.float32)
        for shape in ((1, 1, 1, 1), (8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 1, 2), (1, 2, 2, 2)):
            size = int(np.prod(shape))
            mesh = Mesh(np.array(jax.devices()[:size]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 4)
            model = model_on(config, mesh)
            params = jax.device_get(jax.jit(model.init)(jax.random.key(0)))
            layout = weights_layout(mesh, model.axes, params)

            def loss(params, sequences, weight):
                found = score(model, params, sequences, completion_width=11, temperature=0.7, chunk=4)
                return jnp.sum(weight * (found.logprobs + 0.3 * found.entropy)), found

            program = jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=(None, layout))
            placed = jax.tree.map(jax.device_put, params, layout)
            lowered = program.lower(placed, put_rows(mesh, sequences), put_rows(mesh, weight)).compile()
            (value, scores), gradient = lowered(placed, put_rows(mesh, sequences), put_rows(mesh, weight))
            once, *loops = traffic(lowered.as_text())
            results[f"{rows} {shape}"] = {
                "logprobs": scores.logprobs.tolist(), "entropy": scores.entropy.tolist(), "value": float(value),
                "gradient": np.concatenate([np.ravel(g) for g in jax.tree.leaves(jax.device_get(gradient))]).tolist(),
                "summed": [
                    sum(part.calls.get("all-reduce", 0) for part in (once, *loops)),
                    len(re.findall(r" all-reduce(?:-start)?\\(", lowered.as_text())),
                ],
            }
    print(json.dumps(results))
"""


@pytest.fixture(scope="module", params=["tied", "apart"])
def scored(request):
    return json.loads(printed_by(SCORES, request.param, devices=8).splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("rows", [16, 12])
@pytest.mark.parametrize("mesh", MESHES)
def test_scores_and_gradients_are_those_of_one_device(scored, mesh, rows):
    one, other = scored[f"{rows} (1, 1, 1, 1)"], scored[f"{rows} {mesh}"]
    assert np.abs(one["gradient"]).max() > 0.1
    for name in ("logprobs", "entropy", "value", "gradient"):
        largest = np.abs(one[name]).max()
        np.testing.assert_allclose(other[name], one[name], atol=1e-5 * max(largest, 1), rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_gradients_are_summed_over_the_shards_once_and_not_for_every_chunk(scored):
    """Of 16 rows each of 8 shards has 6 chunks; what stood in their loop would be counted 6 times."""
    counted, written = scored["16 (8, 1, 1, 1)"]["summed"]
    assert counted == written > 0


EMBEDDED = """
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, Mesh
    from lilo_jax.device.mesh import AXES, constrainer, put_rows, sharding
    from lilo_jax.models.decoder import DecoderConfig
    from lilo_jax.models.layers import _embedded
    from lilo_jax.planning.collectives import traffic

    config = DecoderConfig(vocab_size=512, embed_dim=64, compute_dtype="bfloat16")
    rng = np.random.default_rng(0)
    tokens = rng.integers(512, size=(16, 8)).astype(np.int32)
    tokens[:, :3] = 3
    table = rng.normal(size=(512, 64)).astype(np.float32)
    results = {}
    for shape in ((8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 8, 1), (2, 2, 1, 2), (1, 2, 2, 2), (2, 2, 2, 1)):
        mesh = Mesh(np.array(jax.devices()).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 4)
        layout = sharding(mesh, ("vocab", "embed"), table.shape)

        def loss(table, tokens):
            states = _embedded(config, constrainer(mesh), {"embedding": table}, tokens)
            return jnp.sum(states.astype(jnp.float32) * jnp.arange(64)[None, None]), states

        program = jax.jit(jax.grad(loss, has_aux=True), out_shardings=(layout, None))
        arguments = jax.device_put(table, layout), put_rows(mesh, tokens)
        lowered = program.lower(*arguments).compile()
        gradient, states = lowered(*arguments)
        (moved,) = traffic(lowered.as_text())
        results[str(shape)] = {
            "gradient": gradient.tolist(), "states": states.astype(jnp.float32).tolist(), "moved": moved.size,
        }
    results["tokens"], results["table"] = tokens.tolist(), table.tolist()
    print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def embedded():
    return json.loads(printed_by(EMBEDDED, devices=8).splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [*MESHES, "(1, 1, 8, 1)", "(2, 2, 2, 1)"])
def test_embeddings_are_rows_of_the_table_and_their_gradients_are_added_up_in_float32(embedded, mesh):
    tokens, table = np.array(embedded["tokens"]), np.array(embedded["table"], np.float32)
    rounded = table.astype(jnp.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(embedded[mesh]["states"], rounded[tokens])
    # A gradient of 0 .. 63 for each time that a token occurs, which bfloat16 could not count to 16 times.
    counts = np.bincount(tokens.ravel(), minlength=512)
    assert counts.max() > 16
    np.testing.assert_array_equal(embedded[mesh]["gradient"], counts[:, None] * np.arange(64.0)[None])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["(1, 8, 1, 1)", "(1, 1, 8, 1)", "(2, 2, 1, 2)", "(1, 2, 2, 2)", "(2, 2, 2, 1)"])
def test_embeddings_are_exchanged_and_the_table_is_not_gathered(embedded, mesh):
    """All states of the batch are 16 x 8 x 64 numbers, of which a device exchanges its part; the table is 512 x 64."""
    data, _, sequence, _ = ast.literal_eval(mesh)
    moved = embedded[mesh]["moved"]
    exchanges = 1 + (sequence not in (1, 8))  # one for each axis that the width is split over
    assert moved["all-to-all"] <= 2 * exchanges * 2 * 16 * 8 * 64 // data
    assert moved.get("all-gather", 0) <= 4 * 16 * 8  # the tokens
    assert moved.get("collective-permute", 0) == 0
