"""Settings of the sampler."""

import dataclasses

from lilo_jax.bounds import Count, Positive, PositiveShare, Share, Whole
from lilo_jax.sampling.token_choice import TokenRule


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How completions are sampled."""

    questions: Count = 8
    """|B|: questions trained on per step"""
    samples: Count = 8
    """G: rollouts per question"""
    max_new_tokens: Count = 11
    """longest completion, its end token included"""
    min_new_tokens: Whole = 0
    """no end token is drawn before this many tokens"""
    stop: tuple[str, ...] = ()
    """strings that end a completion; the answer is what stands before"""
    temperature: Positive = 1.0
    top_p: PositiveShare = 1.0
    top_k: Whole = 0
    """draw from the k most likely tokens; 0 from all"""
    min_p: Share = 0.0
    """draw from the tokens at least this share as likely as the most likely one"""
    slots: Whole = 0
    """completions decoding at the same time; 0 decodes all of a call"""
    prefill_tokens: Count = 2048
    """prompt tokens run at the same time; bounds the memory of prefill"""
    calls: Count = 1
    """sampling calls per round: completions of one are graded while the next decodes"""

    @property
    def rule(self) -> TokenRule:
        """How a token is drawn."""
        return TokenRule(self.temperature, self.top_p, self.top_k, self.min_p)
