"""Prompts to completions on the device."""

from lilo_jax.sampling.engine import sample
from lilo_jax.sampling.token_choice import choose_tokens, nucleus

__all__ = ["choose_tokens", "nucleus", "sample"]
