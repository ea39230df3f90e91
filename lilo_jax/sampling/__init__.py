"""Prompts to completions on the device."""

from lilo_jax.sampling.engine import sample
from lilo_jax.sampling.stopping import cut_at_stop, stop_table
from lilo_jax.sampling.token_choice import TokenRule, choose_tokens

__all__ = ["TokenRule", "choose_tokens", "cut_at_stop", "sample", "stop_table"]
