"""Audits of a run: what the curriculum believes, held against many rollouts of questions that nobody chose."""

from collections.abc import Callable

import jax
import numpy as np

from lilo_jax.evaluation.calibration import AuditConfig, audit_measures, by_visits
from lilo_jax.evaluation.outcomes import Probe, outcomes
from lilo_jax.keys import stream_key
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.noise import AUDIT
from lilo_jax.types import Array, Estimate, PyTree


def audit(
    probe: Probe,
    settings: AuditConfig,
    params: PyTree,
    believe: Callable[[Array, Array], Estimate] | None,
    visits: np.ndarray,
    step: int,
    ledger: Ledger,
) -> dict[str, float | None]:
    """Metrics `audit/...` of the belief with which a step begins; see `audit_measures` and `by_visits`.

    The curriculum sees nothing of it and every key is the audit's own, so a run is the same with and without.

    Args:
        probe: what samples and grades.
        settings: how many questions, and rollouts of each.
        params: policy weights.
        believe: (places, key) -> what the curriculum believes of these questions; None if it believes nothing.
        visits: int [pool], how often each question was rolled out in training.
        step: at which it happens.
        ledger: books the tokens.
    """
    seed = probe.judge.seed
    key = stream_key(seed, "audit questions", step)
    # Not `selectors.draw`, whose loop would be compiled anew at every call outside of a program.
    places = np.asarray(jax.random.choice(key, len(probe.pool.lengths), (settings.questions,), replace=False))
    counts = outcomes(probe, params, places, step, ledger, samples=settings.samples, purpose="audit", phase=AUDIT)
    probe.judge.graders.workers.take_counts()  # those of a step are its own
    if believe is None:
        found = audit_measures(None, *counts)
    else:
        belief = np.asarray(jax.device_get(believe(places, stream_key(seed, "audit belief", step))).mean)
        found = audit_measures(belief, *counts) | by_visits(belief, *counts, visits[places])
    return {f"audit/{name}": value for name, value in found.items()}
