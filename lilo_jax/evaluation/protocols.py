"""How responses are sampled and graded, under the names of the papers whose numbers they reproduce."""

import dataclasses

from lilo_jax.bounds import Count, NotNegative, PositiveShare, Whole
from lilo_jax.errors import unknown_name
from lilo_jax.sampling import TokenRule


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to evaluate.

    Attributes:
        samples: responses per question.
        temperature: 0 is greedy.
        top_p: smallest set of tokens with this probability.
        max_new_tokens: longest response.
        stop: strings that end a response.
        template: prompt style; "" leaves the task's own.
        grader: "" leaves the task's own.
        seed: of the draws.
    """

    samples: Count
    temperature: NotNegative
    top_p: PositiveShare
    max_new_tokens: Count
    stop: tuple[str, ...] = ()
    template: str = ""
    grader: str = ""
    seed: Whole = 0

    @property
    def rule(self) -> TokenRule:
        """How a token is drawn."""
        return TokenRule(self.temperature, self.top_p)


PROTOCOLS = {
    # Kazemnejad et al. 2024 (VinePPO), as their code has it; Foster et al. 2025 (LILO) evaluate PPO and VinePPO so.
    "vineppo": Protocol(16, 0.35, 0.9, 1024, stop=("\n\n\nProblem:",), template="vineppo", grader="paper", seed=42),
    # Liu et al. 2025 (Dr. GRPO); LILO evaluates GRPO so, as the mean of five sets.  Deviation: their grader is an
    # older relative of `default`.
    "oat": Protocol(1, 0.0, 1.0, 3000, template="qwen_math", grader="default"),
    "greedy": Protocol(1, 0.0, 1.0, 1024),
}


def protocol(name: str) -> Protocol:
    """The protocol of that name; an unknown one is a `UsageError` that lists them."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Accuracy on held-out questions."""

    every: Count = 10
    """steps between evaluations"""
    splits: tuple[str, ...] = ()
    """held-out sets evaluated each time; empty: all that the task has"""
    suites: tuple[str, ...] = ()
    """test sets of other tasks, NAME or NAME=PATH, such as math500 or collegemath=data/college"""
    protocol: str = ""
    """vineppo, oat or greedy: its samples, temperature, top-p and max-new-tokens where they are not given, its stop
    strings, prompt style and grader"""
    samples: Count = 4
    """completions per question where accuracy must be sampled; a task with unique answers is evaluated exactly"""
    temperature: NotNegative = 1.0
    top_p: PositiveShare = 1.0
    max_new_tokens: Whole = 0
    """longest completion; 0: as in training"""
    max_questions: Whole = 0
    """questions per set, the first ones; 0 takes all"""
    rows: Count = 256
    """sequences per device call"""
