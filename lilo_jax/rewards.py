"""What a rollout earns: 1 for a correct answer, and what shaping adds to it.

The *outcome*, whether the verdict is correct, stays apart: success rates, and so p(1 - p), are computed from it alone,
whatever is earned.  Shaping changes what the algorithm learns from, never which questions are chosen.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Literal

from lilo_jax.errors import UsageError
from lilo_jax.types import Verdict

Reward = Callable[[str, Verdict, int], float]
"""(response, verdict, generated tokens) to what it earns."""

FORMATS: dict[str, re.Pattern[str]] = {
    "boxed": re.compile(r"\\boxed\{.+\}", re.DOTALL),
    "hashes": re.compile(r"\n?####\s*\S+[^\n]*\s*\Z"),
    # Thinking that is closed, then the answer: the join is exact; a stop string may have taken the last tag off.
    "r1": re.compile(r"\A(?:(?!</think>|<answer>).)+</think> <answer>(?:(?!<answer>).)+\Z", re.DOTALL),
}
"""Forms of a response, by name; `r1` continues a prompt that opened <think> (Liu et al. 2025, Dr. GRPO)."""


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """What is added to the reward of a rollout; nothing as it stands."""

    format: Literal["", "boxed", "hashes", "r1"] = ""
    """form of a response that earns format-weight: an answer in a box, after ####, or in the tags of r1"""
    format_weight: float = 0.1
    length_penalty: float = 0.0
    """taken off at the longest length, falling linearly to nothing at length-free tokens"""
    length_free: int = 0
    """tokens that cost nothing"""

    def build(self, *, max_new_tokens: int) -> Reward:
        """The reward function; `max_new_tokens` is the longest length."""
        if not 0 <= self.length_free < max_new_tokens:
            raise UsageError(
                f"--reward.length-free must be from 0 to below the {max_new_tokens} tokens of a completion"
            )
        reward: Reward = correctness
        if self.format:
            reward = with_format(reward, FORMATS[self.format], weight=self.format_weight)
        if self.length_penalty:
            reward = with_length_penalty(reward, weight=self.length_penalty, free=self.length_free, most=max_new_tokens)
        return reward


def correctness(response: str, verdict: Verdict, tokens: int) -> float:
    """1 for a correct answer, else 0."""
    return float(verdict is Verdict.CORRECT)


def with_format(reward: Reward, form: re.Pattern[str], *, weight: float) -> Reward:
    """The reward, and `weight` more for a response that has the form."""
    return lambda response, verdict, tokens: reward(response, verdict, tokens) + weight * bool(form.search(response))


def with_length_penalty(reward: Reward, *, weight: float, free: int, most: int) -> Reward:
    """The reward, less weight * (tokens - free) / (most - free) for tokens beyond `free`.

    With weight 1 and free = most - cache this is DAPO's soft overlong punishment (Yu et al. 2025, equation 13).
    """
    return lambda response, verdict, tokens: (
        reward(response, verdict, tokens) - weight * max(tokens - free, 0) / (most - free)
    )
