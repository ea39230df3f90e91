"""Speed and memory of lilo_jax beside its peers, on the same weights and prompts: `python -m benchmarks`."""
