"""Settings of every test: no network, one CPU device, strict shapes, and fixtures shared by several files."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax

jax.config.update("jax_numpy_rank_promotion", "warn")
