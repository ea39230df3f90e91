"""Runs that collapsed, by rules that are stated."""

from collections.abc import Sequence

import numpy as np

from lilo_jax.report.speedup import Curve, smooth
from lilo_jax.storage.run_directory import RunDirectory

LOST = 1 / 3
"""Share of its best smoothed accuracy that a run has lost at its end if it collapsed."""
LOST_AT_LEAST = 0.05
"""Accuracy that it has lost at least: of a poor best, a third is noise."""
DECIDED = 0.01
"""Nats of surprisal of a token below which a policy samples one response only."""
TAIL, LEAST_TAIL = 10, 3
"""A run ends with its last tenth of steps, three at least."""
RULES = (
    f"A run has collapsed if its smoothed accuracy ends {LOST:.0%} or more, and at least {LOST_AT_LEAST}, below its "
    f"best; if the mean surprisal of a sampled token, which estimates the entropy, is below {DECIDED} nats over the "
    f"last tenth of steps; or if none of the groups trained on in these steps has any variance"
)


def collapses(run: RunDirectory, curve: Curve) -> list[str]:
    """What happened to a run by each of the `RULES` that it meets, as clauses; nothing if it meets none."""
    metrics = run.read("metrics")
    tail = metrics[-max(len(metrics) // TAIL, LEAST_TAIL) :]
    surprisal, flat = (
        [record[name] for record in tail if record.get(name) is not None]
        for name in ("rollout/surprisal_mean", "curriculum/admitted_zero_variance_fraction")
    )
    found = [fall(curve)]
    if _enough(surprisal) and np.mean(surprisal) < DECIDED:
        found.append(f"the surprisal of a sampled token went to {np.mean(surprisal):.4f} nats")
    if _enough(flat) and min(flat) == 1:
        found.append(f"no group of the last {len(tail)} steps had any variance")
    return [clause for clause in found if clause]


def fall(curve: Curve) -> str:
    """How far accuracy fell from its best, if it collapsed; "" if not."""
    smoothed = smooth(curve.accuracy)
    best = int(np.argmax(smoothed))
    lost = smoothed[best] - smoothed[-1]
    if lost < max(LOST * smoothed[best], LOST_AT_LEAST):
        return ""
    steps = curve.budget("steps")
    return f"accuracy fell from {smoothed[best]:.3f} at step {steps[best]:.0f} to {smoothed[-1]:.3f}"


def _enough(values: Sequence[float]) -> bool:
    return len(values) >= LEAST_TAIL
