"""Questions that kept having no variance are skipped before they are rolled out, by coins that steer themselves.

    P(skip i) = 1 - max(p_x^z_i, explore),   z_i visits in a row that were all right (x = easy) or all wrong (x = hard)

Batches are then filled as in dynamic sampling, each round sized by the share of mixed groups that the step has seen.

Source: Zheng et al. 2025 (GRESO, arXiv:2506.02177) and its release: targets of 1/12 and 1/6 for the shares
of easy and hard groups, both probabilities from 0.5 in steps of 0.01 within [0.05, 0.95].
Deviation: questions are drawn from the whole pool, not epoch by epoch.
"""

import dataclasses
import math
from typing import Annotated

from annotated_types import Ge
from jaxtyping import Float, Int

from lilo_jax.bounds import Count, PositiveShare, Share
from lilo_jax.curriculum.composition import compose
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.curriculum.controllers import runs, skipping
from lilo_jax.curriculum.gates import only_mixed
from lilo_jax.curriculum.rounds import expecting
from lilo_jax.curriculum.sources import not_skipped, whole_pool
from lilo_jax.types import Array, CurriculumState


@dataclasses.dataclass(frozen=True)
class Greso:
    """Settings of GRESO."""

    easy_target: Share = 1 / 12
    """share of all-right groups that is aimed at"""
    hard_target: Share = 1 / 6
    """share of all-wrong groups that is aimed at"""
    explore: PositiveShare = 0.01
    """least probability of not being skipped"""
    first_ratio: Annotated[float, Ge(1)] = 1.5
    """questions of the first round per question trained on; later ones are at most as large"""
    margin: Annotated[float, Ge(1)] = 1.25
    """how many more groups than expected a later round asks for"""
    most_rounds: Count = 8
    """rounds of a step at most"""

    def build(self, *, pool_size: int, questions: int, samples: int) -> Curriculum:
        """Rolls out questions that are not skipped until `questions` groups are mixed."""
        count = math.ceil(self.first_ratio * questions)
        if count > pool_size:
            raise ValueError(
                f"greso starts with {self.first_ratio} x {questions} questions of a pool of {pool_size}; change "
                f"--curriculum.first-ratio"
            )

        def probability(state: CurriculumState, places: Int[Array, "questions"]) -> Float[Array, "questions"]:
            return skipping(state.memory["runs"], places, explore=self.explore)

        return compose(
            source=not_skipped(whole_pool(pool_size), probability),
            rounds=expecting(
                count, count, samples, gate=only_mixed, needed=questions, most=self.most_rounds, margin=self.margin
            ),
            gate=only_mixed,
            count=questions,
            rows=questions * samples,
            least_samples=2,
            remembers={"runs": runs(targets=(self.easy_target, self.hard_target))},
        )
