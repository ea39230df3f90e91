"""Accuracy on held-out questions, the same during training and alone."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lilo_jax.assembly import Assembly, EncodedQuestions, encode_pairs
from lilo_jax.collection import sample
from lilo_jax.errors import RunError
from lilo_jax.keys import stream_key
from lilo_jax.mesh import put_rows
from lilo_jax.sampling import TokenRule
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.graders import Answer
from lilo_jax.types import Prompts, PyTree, Question, Requests, Sequences, Verdict


def evaluate(assembly: Assembly, params: PyTree, step: int, ledger: Ledger) -> list[dict[str, Any]]:
    """Accuracy on every split that the config names, one record a split.

    A record holds `step`, `split`, `accuracy` (mean success probability of a sampled answer), `standard_error` (over
    questions), `questions`, `method` ("exact" or "sampled") and, where the task has levels, `by_difficulty`.
    """
    records = []
    for split, encoded in assembly.held_out.items():
        count = assembly.config.evaluation.max_questions or len(encoded.questions)
        encoded = EncodedQuestions(encoded.questions[:count], encoded.tokens[:count], encoded.lengths[:count])
        # A tokenizer with several ways to write a text has several right token sequences.
        exact = assembly.task.unique_answers and assembly.tokenizer.unique_segmentation
        rates = (
            exact_rates(assembly, params, encoded, ledger)
            if exact
            else sampled_rates(assembly, params, encoded, step, ledger)
        )
        measured = rates[~np.isnan(rates)]
        if not measured.size:
            raise RunError(f"the grader failed on every answer of {split!r}; --debug shows nothing more, try it alone")
        records.append(
            {
                "step": step,
                "split": split,
                "accuracy": float(measured.mean()),
                "standard_error": float(measured.std() / np.sqrt(len(measured))),
                "questions": len(measured),
                "method": "exact" if exact else "sampled",
                **_by_difficulty(encoded.questions, rates),
            }
        )
    return records


def exact_rates(assembly: Assembly, params: PyTree, encoded: EncodedQuestions, ledger: Ledger) -> np.ndarray:
    """Success rate at temperature 1 of questions with one right token sequence: that sequence's probability.

    One teacher-forced pass per question, no sampling and so no sampling noise.  float64 [N].
    """
    pairs = [(q.prompt, q.answer) for q in encoded.questions]
    sequences = encode_pairs(assembly.tokenizer, pairs, chat=assembly.config.tokenizer.chat)
    slots = int(sequences.completion_lengths.max())
    rates = []
    for start in range(0, len(encoded.questions), assembly.config.evaluation.rows):
        part = _padded_rows(sequences, start, assembly.config.evaluation.rows)
        placed = put_rows(assembly.mesh, part)
        scores = assembly.programs.score(params, placed, completion_slots=slots, temperature=1.0)
        rates.append(np.exp(np.asarray(scores.logprobs, np.float64).sum(axis=1)))
    ledger.add("evaluation", "scored", int(sequences.prompt_lengths.sum() + sequences.completion_lengths.sum()))
    return np.concatenate(rates)[: len(encoded.questions)]


def sampled_rates(
    assembly: Assembly, params: PyTree, encoded: EncodedQuestions, step: int, ledger: Ledger
) -> np.ndarray:
    """Share of correct answers among `evaluation.samples` completions per question, float64 [N].

    Completions whose grader failed are left out; NaN where it failed on all of a question.
    """
    config = assembly.config.evaluation
    correct, graded = np.zeros(len(encoded.questions)), np.zeros(len(encoded.questions))
    key = stream_key(assembly.config.seed, "evaluate", step)
    per_call = max(config.rows // config.samples, 1)
    rule = TokenRule(config.temperature, config.top_p)
    for start in range(0, len(encoded.questions), per_call):
        ids = np.arange(start, min(start + per_call, len(encoded.questions)))
        padded = np.pad(ids, (0, per_call - len(ids)), mode="edge")
        prompt = np.repeat(np.arange(per_call), config.samples)
        budget = np.where(prompt < len(ids), assembly.config.rollout.max_new_tokens, 0)
        requests = Requests(
            prompt=prompt.astype(np.int32),
            prefix_length=encoded.lengths[padded][prompt],
            id=(padded[prompt] * config.samples + np.tile(np.arange(config.samples), per_call)).astype(np.int32),
            budget=budget.astype(np.int32),
            expected_length=np.zeros(len(prompt), np.float32),
        )
        prompts = Prompts(tokens=encoded.tokens[padded], lengths=encoded.lengths[padded])
        completions = jax.device_get(sample(assembly, params, prompts, requests, key, rule))
        ledger.add("evaluation", "prefilled", encoded.lengths[ids].sum())
        ledger.add("evaluation", "generated", completions.lengths.sum())
        answers, owners = [], []
        for row in np.flatnonzero(budget):
            owners.append(ids[prompt[row]])
            tokens = completions.tokens[row, : completions.lengths[row]].tolist()
            answers.append(Answer(encoded.questions[owners[-1]], tokens, bool(completions.ended[row])))
        verdicts = [verdict for future in assembly.graders.submit(answers) for _, verdict in future.result()]
        for owner, verdict in zip(owners, verdicts, strict=True):
            correct[owner] += verdict is Verdict.CORRECT
            graded[owner] += verdict not in (Verdict.TIMEOUT, Verdict.ERROR)
    return np.divide(correct, graded, out=np.full(len(correct), np.nan), where=graded > 0)


def _padded_rows(sequences: Sequences, start: int, rows: int) -> Sequences:
    """Rows start..start+rows, the last part filled up by repeating the last row."""
    index = np.minimum(np.arange(start, start + rows), len(sequences.tokens) - 1)
    return jax.tree.map(lambda x: x[index], sequences)


def _by_difficulty(questions: Sequence[Question], rates: np.ndarray) -> dict[str, Any]:
    levels = [q.difficulty for q in questions if q.difficulty is not None]
    if len(levels) < len(questions):
        return {}
    return {
        "by_difficulty": {
            str(level): float(np.nanmean([r for r, own in zip(rates, levels, strict=True) if own == level]))
            for level in sorted(set(levels))
        }
    }
