"""Small runs that are written, not trained: what a report reads."""

import json

import numpy as np

from lilo_jax.storage.run_directory import RunDirectory

STEPS, EVERY, POOL = 20, 5, 24
ATTACK = '<script>alert("x")</script>'
KINDS = ("prefilled", "generated", "scored", "trained")


def groups_of_step(successes, rng, *, believes):
    """A record of groups of 8 rollouts of random questions, of which so many are right."""
    record = {
        "question": rng.permutation(POOL)[: len(successes)].tolist(),
        "correct": successes.tolist(),
        "graded": [8] * len(successes),
        "admitted": [True] * len(successes),
    }
    return record | ({"belief": rng.random(len(successes)).round(4).tolist()} if believes else {})


def write_run(path, *, curriculum, seed, slope, groups=4, done=True, **settings):
    """A run whose accuracy climbs by `slope` a step, with a bend of its own for every seed."""
    (path / "rollouts").mkdir(parents=True)
    selects = curriculum["name"] == "lilo"
    config = {
        "seed": seed,
        "num_steps": STEPS,
        "task": {"name": "chain"},
        "curriculum": curriculum,
        "algorithm": {"name": "ppo"},
        "rollout": {"questions": 4, "samples": 8},
        "storage": {"keep": seed},
    } | settings
    run, rng = RunDirectory(path), np.random.default_rng(seed)
    run.files.write("config.json", json.dumps(config).encode())
    environment = {"python": "3.11", "platform": "here", "packages": {"jax": "0.9"}, "devices": ["cpu:0"], "commit": ""}
    run.files.write("environment.json", json.dumps(environment).encode())
    entries = [{"split": "train", "id": f"q{i}", "content": f"q{i}", "where": ""} for i in range(POOL)]
    run.files.write("questions.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries).encode())
    ledger = {f"{purpose}/{kind}": 0 for purpose in ("sft", "train", "rejected", "evaluation") for kind in KINDS}
    ledger["train/flops"] = 0
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            accuracy = 0.2 + slope * step + 0.002 * seed * (step > 0)
            levels = {"1": min(accuracy + 0.1, 1.0), "2": accuracy - 0.1}
            run.append("eval", {"step": step, "split": "validation", "accuracy": 0.5})
            run.append("eval", {"step": step, "split": "test", "accuracy": accuracy, "by_difficulty": levels})
        if step == STEPS:
            break
        successes = rng.integers(0, 9, size=groups)
        trained = np.sort(np.abs(successes - 4))[:2] + 4 if selects else successes
        metrics = {"curriculum/groups_collected": groups, "curriculum/groups_admitted": len(trained)}
        for kind, found in (("collected", successes), ("admitted", trained)):
            metrics[f"curriculum/{kind}_success_mean"] = float(np.mean(found / 8))
            metrics[f"curriculum/{kind}_difficulty_mean"] = 1.5
            metrics[f"curriculum/{kind}_zero_variance_fraction"] = float(np.mean(found % 8 == 0)) if step else None
            metrics[f"curriculum/{kind}_histogram"] = np.bincount(found, minlength=9).tolist()
        run.append("groups", {"step": step, **groups_of_step(successes, rng, believes=selects)})
        ledger["train/generated"] += 100
        ledger["rejected/generated"] += 300 if selects else 0
        ledger["evaluation/generated"] += 7
        ledger["train/trained"] += 250
        ledger["train/flops"] += 2000 if selects else 1000
        run.append("metrics", {"step": step, **metrics})
        run.append("timings", {"step": step, "compile": 9.0 * (step == 0), "sample": 0.5, "update": 0.25})
        run.append("ledger", {"step": step, **ledger})
        run.append("grading", {"step": step, "answers": 32} | ({"seconds": 0.1} if selects else {}))
    for step in (0, 10):
        rows = [("correct", "12"), ("wrong", f"{ATTACK} {step}"), ("no_answer", "&lt;")]
        common = {"group": 0, "round": 0, "admitted": True, "prompt": "1+1<=?", "gold": "12", "tokens": 3}
        named = {"id": f"id{step}", "where": f"<q>.jsonl, line {step}"} if step else {}  # older records have neither
        run.write_rollouts(
            step, [common | named | {"question": q, "verdict": v, "response": r} for q, (v, r) in enumerate(rows)]
        )
    if done:
        run.mark("DONE", f"{STEPS} steps")
    return run
