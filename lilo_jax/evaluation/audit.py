"""Audits of a run: what the curriculum believes, held against many rollouts of questions that nobody chose."""

import jax
import numpy as np

from lilo_jax.assembly import Assembly
from lilo_jax.evaluation.calibration import audit_measures
from lilo_jax.evaluation.outcomes import outcomes
from lilo_jax.keys import stream_key
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.noise import AUDIT
from lilo_jax.types import TrainState


def audit(
    assembly: Assembly, state: TrainState, step: int, ledger: Ledger, clock: PhaseClock
) -> dict[str, float | None]:
    """Metrics `audit/...` of the belief with which a step begins; none if the step has no audit.

    The curriculum sees nothing of it and every key is the audit's own, so a run is the same with and without.  See
    `audit_measures`.
    """
    config, programs = assembly.config, assembly.programs
    if not config.audit.questions or step % config.audit.every:
        return {}
    with clock.phase("audit"):
        key = stream_key(config.seed, "audit questions", step)
        # Not `selectors.draw`, whose loop would be compiled anew at every call outside of a program.
        ids = np.asarray(jax.random.choice(key, len(assembly.pool.lengths), (config.audit.questions,), replace=False))
        counts = outcomes(
            assembly, assembly.policy(state), ids, step, ledger,
            samples=config.audit.samples, purpose="audit", phase=AUDIT,
        )  # fmt: skip
        belief = None
        if programs.estimate is not None:
            key = stream_key(config.seed, "audit belief", step)
            belief = jax.device_get(programs.estimate(state.curriculum, key))[ids]
        assembly.graders.pool.take_counts()  # those of a step are its own
        return {f"audit/{name}": value for name, value in audit_measures(belief, *counts).items()}
