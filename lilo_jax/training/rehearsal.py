"""Asks a curriculum once what it would roll out first, before anything is spent on a run that trains on nothing."""

from collections.abc import Sequence

import numpy as np

from lilo_jax.curriculum.contract import Curriculum, Wants
from lilo_jax.device.selection import first_proposal
from lilo_jax.errors import UsageError
from lilo_jax.questions import Question
from lilo_jax.types import Facts


def rehearse(curriculum: Curriculum, questions: Sequence[Question], wanted: int) -> None:
    """Raises `UsageError` if the first proposal asks for fewer than the `wanted` questions of a step.

    A rule may declare that it does; see `Curriculum.may_propose_fewer`.
    """
    if curriculum.may_propose_fewer:
        return
    proposal = first_proposal(curriculum, cheap_facts(questions, curriculum.wants))
    if (proposed := int(np.sum(proposal.mask))) < wanted:
        raise UsageError(
            f"the curriculum proposes {proposed} of the {wanted} questions of the first step: lower "
            f"--rollout.questions, change the settings of --curriculum, or give more questions"
        )


def cheap_facts(questions: Sequence[Question], wants: Wants) -> Facts:
    """What the data says of the questions; in the place of what would have to be measured, the same for all."""
    names = [question.category for question in questions]
    return Facts(
        features=np.zeros((len(questions), wants.features), np.float32) if wants.features else None,
        grade=np.full(len(questions), 0.5, np.float32),
        category=np.unique(names, return_inverse=True)[1].astype(np.int32),
        level=np.array([question.level or 0 for question in questions], np.int32),
    )
