"""Experiments: one module per table, figure or ablation; run each with `python -m experiments.NAME`."""
