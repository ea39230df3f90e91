"""What a rollout earns: 1 for a correct answer, and what shaping adds to it.

The *outcome*, whether the verdict is correct, stays apart: success rates, and so p(1 - p), are computed from it alone,
whatever is earned.  Shaping changes what the algorithm learns from, never which questions are chosen.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

from lilo_jax.bounds import NotNegative, Whole
from lilo_jax.errors import UsageError
from lilo_jax.grading.extraction import boxed
from lilo_jax.questions import Verdict

Reward = Callable[[str, Verdict, int], float]
"""(response, verdict, generated tokens) to what it earns."""


def has_box(response: str) -> bool:
    r"""Whether a response holds a \boxed{} with something in it."""
    return bool((boxed(response) or "").strip())


def ends_with_hashes(response: str) -> bool:
    """Whether the last line is #### and an answer."""
    last = response.rstrip().rpartition("\n")[2]
    return last.startswith("####") and bool(last.strip("# "))


def is_r1(response: str) -> bool:
    """Whether thinking, which the prompt opened, is closed, and joined by one space to one answer in its tags.

    A stop string may have taken the last tag off.  Source: Liu et al. 2025 (Dr. GRPO), the r1 template's reward.
    """
    thinking, join, answer = response.partition("</think> <answer>")
    tags = ("<think>", "</think>", "<answer>")
    return bool(thinking.strip() and join and answer.strip()) and not any(t in thinking + answer for t in tags)


FORMATS: dict[str, Callable[[str], bool]] = {"boxed": has_box, "hashes": ends_with_hashes, "r1": is_r1}
"""Forms of a response, by name."""


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """What is added to the reward of a rollout; nothing as it stands."""

    format: Literal["", "boxed", "hashes", "r1"] = ""
    """form of a response that earns format-weight: an answer in a box, after ####, or in the tags of r1"""
    format_weight: NotNegative = 0.1
    length_penalty: NotNegative = 0.0
    """taken off at the longest length, falling linearly to nothing at length-free tokens"""
    length_free: Whole = 0
    """tokens that cost nothing"""

    def build(self, *, max_new_tokens: int) -> Reward:
        """The reward function; `max_new_tokens` is the longest length."""
        if self.length_free >= max_new_tokens:
            raise UsageError(f"--reward.length-free must be below the {max_new_tokens} tokens of a completion")
        reward: Reward = correctness
        if self.format:
            reward = with_format(reward, FORMATS[self.format], weight=self.format_weight)
        if self.length_penalty:
            reward = with_length_penalty(reward, weight=self.length_penalty, free=self.length_free, most=max_new_tokens)
        return reward


def correctness(response: str, verdict: Verdict, tokens: int) -> float:
    """1 for a correct answer, else 0."""
    return float(verdict is Verdict.CORRECT)


def with_format(reward: Reward, form: Callable[[str], bool], *, weight: float) -> Reward:
    """The reward, and `weight` more for a response that has the form."""
    return lambda response, verdict, tokens: reward(response, verdict, tokens) + weight * form(response)


def with_length_penalty(reward: Reward, *, weight: float, free: int, most: int) -> Reward:
    """The reward, less weight * (tokens - free) / (most - free) for tokens beyond `free`.

    With weight 1 and free = most - cache this is DAPO's soft overlong punishment (Yu et al. 2025, equation 13).
    """
    return lambda response, verdict, tokens: (
        reward(response, verdict, tokens) - weight * max(tokens - free, 0) / (most - free)
    )
