"""What a step cost and what it looked like: entries of the ledger, metrics of the groups, records of the rollouts."""

import math
from typing import Any

import jax
import numpy as np

from lilo_jax.questions import Verdict
from lilo_jax.rl.update import UpdateConfig
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tokenizers.encoding import EncodedQuestions
from lilo_jax.training.collection import Collected, Collector
from lilo_jax.types import Admission, Array, CurriculumState, Estimate, GroupStatistics, TrainBatch, TrainState

MOST_SUSPECTS = 100


def book(
    collector: Collector,
    update: UpdateConfig,
    collected: Collected,
    admission: Admission,
    batch: TrainBatch,
    ledger: Ledger,
) -> None:
    """Puts a step's sampling, scoring and training on the ledger; of `batch` the rows that are `informative`."""
    purposes = _purposes(collector, collected, admission)
    for group in np.flatnonzero(collected.place >= 0):
        ledger.add(purposes[group], "prefilled", collected.prefilled[group])
    for row in collected.rollouts:
        ledger.add(purposes[row.group], "generated", len(row.completion_ids))
    lengths = batch.sequences.prompt_lengths + batch.sequences.completion_lengths
    trained = int(np.sum(lengths[batch.informative]))
    algorithm = collector.programs.algorithm
    models = (update.old_logprobs == "scored") + algorithm.needs_reference + algorithm.needs_values
    ledger.add("train", "scored", models * trained)
    ledger.add("train", "trained", (1 + algorithm.needs_values) * update.epochs * trained)


def _purposes(collector: Collector, collected: Collected, admission: Admission) -> np.ndarray:
    """What the rollouts of each group were made for, [K]; see `Ledger`."""
    rollouts = np.bincount([row.group for row in collected.rollouts], minlength=len(collected.place))
    purposes = np.where(rollouts < collector.rollout.samples, "screen", "rejected")
    purposes[admission.indices[admission.mask]] = "train"
    return purposes


def describe(collector: Collector, collected: Collected, admission: Admission) -> dict[str, Any]:
    """What was collected and what was admitted, for the metrics: histograms, zero-variance shares, difficulty."""
    statistics = collected.statistics
    admitted = admission.indices[admission.mask]
    filled = np.flatnonzero(collected.place >= 0)
    verdicts = {v: sum(r.verdict is v for r in collected.rollouts) for v in Verdict}
    rows = max(len(collected.rollouts), 1)
    lengths = [len(r.completion_ids) for r in collected.rollouts]
    truncated = [not r.ended for r in collected.rollouts]
    logprobs = np.concatenate([r.sampler_logprobs for r in collected.rollouts] or [np.zeros(0)])
    description: dict[str, Any] = {
        "curriculum/groups_collected": len(filled),
        "curriculum/groups_admitted": len(admitted),
        "curriculum/groups_wanted": len(admission.mask),
        "rollout/length_mean": float(np.mean(lengths)) if lengths else 0.0,
        "rollout/surprisal_mean": float(-np.mean(logprobs)) if logprobs.size else None,
        "rollout/truncated_fraction": float(np.mean(truncated)) if truncated else 0.0,
        "rollout/unparsable_fraction": sum(r.ended and r.verdict is Verdict.NO_ANSWER for r in collected.rollouts)
        / rows,
        **{f"rollout/{v.value}_fraction": n / rows for v, n in verdicts.items()},
    }
    for name, groups in (("collected", filled), ("admitted", admitted)):
        description |= _describe_groups(collector, statistics, groups, name)
    return description


def _describe_groups(collector: Collector, statistics: GroupStatistics, groups: Array, name: str) -> dict[str, Any]:
    attempts, successes = statistics.attempts[groups], statistics.successes[groups]
    measured = attempts > 0
    rate = successes[measured] / attempts[measured]
    several = rate[attempts[measured] > 1]  # of one rollout nothing varies
    samples = collector.rollout.samples
    complete = attempts == samples
    found = {
        f"curriculum/{name}_success_mean": _mean(rate),
        f"curriculum/{name}_zero_variance_fraction": _mean((several == 0) | (several == 1)),
        f"curriculum/{name}_learnability_mean": _mean(several * (1 - several)),
        f"curriculum/{name}_histogram": np.bincount(successes[complete].astype(int), minlength=samples + 1).tolist(),
    }
    rewards, rollouts = statistics.reward_sum[groups][measured], attempts[measured]
    found[f"curriculum/{name}_reward_mean"] = _mean(rewards / rollouts)
    questions = statistics.place[groups]
    if collector.judge.noise:
        traps = [bool(collector.pool.questions[q].trap) for q in questions if q >= 0]
        found[f"curriculum/{name}_trap_fraction"] = float(np.mean(traps)) if traps else None
    difficulties = [collector.pool.questions[q].difficulty for q in questions if q >= 0]
    if difficulties and None not in difficulties:
        found[f"curriculum/{name}_difficulty_mean"] = float(np.mean(difficulties))
    return found


def describe_pool(state: CurriculumState) -> dict[str, float]:
    """Which shares of the pool have been graded never, were always right, never right, or sometimes.  They add up to 1.

    Args:
        state: after the step's groups were observed, which ended with the admission that the host has waited for.
    """
    attempts, successes = jax.device_get((state.attempts, state.successes))
    unseen, solved, unsolved = attempts == 0, successes == attempts, successes == 0
    shares = {
        "unseen": unseen,
        "solved": solved & ~unseen,
        "unsolved": unsolved & ~unseen,
        "mixed": ~(solved | unsolved),
    }
    return {f"curriculum/pool_{name}_fraction": float(np.mean(mask)) for name, mask in shares.items()}


def _mean(values: Array) -> float | None:
    return float(np.mean(values)) if np.size(values) else None


def suspects(collector: Collector, state: TrainState) -> list[dict[str, Any]]:
    """Questions that the curriculum rather takes for traps, the likeliest first, as JSON-ready records."""
    if collector.programs.suspicion is None:
        return []
    known, probability = jax.device_get((state.curriculum, collector.programs.suspicion(state.curriculum)))
    order = [i for i in np.argsort(-probability, kind="stable")[:MOST_SUSPECTS] if probability[i] > 0.5]
    return [
        {
            "question": int(i),
            "id": collector.pool.questions[i].id,
            "where": collector.pool.questions[i].where,
            "prompt": collector.pool.questions[i].prompt,
            "gold": collector.pool.questions[i].answer,
            "probability": float(probability[i]),
            "rollouts": int(known.rollouts[i]),
            "graded": int(known.attempts[i]),
            "correct": int(known.successes[i]),
        }
        for i in order
    ]


def group_record(collected: Collected, admission: Admission, believed: Estimate | None) -> dict[str, list[Any]]:
    """The groups of a step, JSON-ready, an entry each in every list.

    `question` is the place in the pool, `correct` of `graded` the rollouts with a verdict, `admitted` whether it was
    trained on, and `belief` the success rate that was believed before; None where nothing was.
    """
    groups, statistics = np.flatnonzero(collected.place >= 0), collected.statistics
    record = {
        "question": collected.place[groups].tolist(),
        "correct": statistics.successes[groups].astype(int).tolist(),
        "graded": statistics.attempts[groups].astype(int).tolist(),
        "admitted": np.isin(groups, admission.indices[admission.mask]).tolist(),
    }
    if believed is None:
        return record
    means = np.asarray(believed.mean, np.float64)[groups].round(4).tolist()
    return record | {"belief": [None if math.isnan(mean) else mean for mean in means]}


def rollout_records(pool: EncodedQuestions, collected: Collected, admission: Admission) -> list[dict[str, Any]]:
    """One JSON-ready record per rollout; `question` is the place in the pool, `where` that in the file."""
    admitted = set(admission.indices[admission.mask].tolist())
    records = []
    for row in collected.rollouts:
        question = pool.questions[collected.place[row.group]]
        records.append(
            {
                "question": int(collected.place[row.group]),
                "id": question.id,
                "where": question.where,
                "group": int(row.group),
                "round": int(collected.round[row.group]),
                "admitted": row.group in admitted,
                "prompt": question.prompt,
                "gold": question.answer,
                "response": row.response,
                "verdict": row.verdict.value,
                "reward": row.reward,
                "tokens": len(row.completion_ids),
            }
        )
    return records
