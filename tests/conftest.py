"""Settings of every test: no network, one CPU device, strict shapes, and fixtures shared by several files."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "warn")


@pytest.fixture(scope="session")
def random_weights():
    """(tree of shapes, seed, deviation) -> float32 weights of those shapes, without compiling an initialiser.

    Normal, and norm scales scatter around 1, so that leaving one out would show.
    """

    def make(shapes, *, seed=0, deviation=0.25):
        rng = np.random.default_rng(seed)

        def weight(path, leaf):
            centre = 1.0 if path[-1].key == "scale" else 0.0
            return np.asarray(centre + deviation * rng.standard_normal(leaf.shape), np.float32)

        return jax.tree_util.tree_map_with_path(weight, shapes)

    return make
