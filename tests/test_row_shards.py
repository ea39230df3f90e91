"""Programs that run per row shard: equal to one device's on every mesh, and nothing sent inside their loops."""

import json

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
