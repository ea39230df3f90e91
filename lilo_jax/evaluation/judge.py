"""From the completions of a training question to verdicts and rewards."""

from collections.abc import Sequence
from typing import NamedTuple

from lilo_jax.evaluation.responses import Answer, Graded, ResponseGrader
from lilo_jax.grading.rewards import Reward
from lilo_jax.grading.workers import Grade
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks.noise import NoiseConfig, disturbed


class Judge(NamedTuple):
    """Who grades and rewards.

    Attributes:
        graders: read completions, and have them graded in the background.
        grade: of the task.
        noise: wrong verdicts that a study plants.
        reward: of a response.
        seed: of the noise.
    """

    graders: ResponseGrader
    grade: Grade
    noise: NoiseConfig
    reward: Reward
    seed: int

    def submit(self, answers: Sequence[Answer]) -> list[Graded]:
        """Responses with judgements to come, in the order of the answers."""
        return self.graders.submit(self.grade, answers)

    def rewarded(
        self, question: Question, response: str, verdict: Verdict, tokens: int, draw: tuple[int, int, int]
    ) -> tuple[Verdict, float]:
        """The verdict, planted noise included, and its reward.

        Args:
            question: that was answered.
            response: to it.
            verdict: of the grader.
            tokens: of the completion.
            draw: step, phase of the step and number of the answer; see `lilo_jax.tasks.noise`.
        """
        found = disturbed(verdict, question, self.noise, (self.seed, *draw))
        return found, self.reward(response, found, tokens)
