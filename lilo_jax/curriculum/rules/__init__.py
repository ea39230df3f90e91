"""Rules: each a file that composes parts of `lilo_jax.curriculum` with its paper's settings."""
