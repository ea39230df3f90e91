"""Responses to held-out questions with their verdicts: sampled once, kept, graded again, summarised."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lilo_jax.errors import UsageError
from lilo_jax.evaluation.measures import bootstrap, maj_at_k, pass_at_k, wilson
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import Answer, ResponseGrader, judgement_of, settled
from lilo_jax.grading.answers import shown
from lilo_jax.grading.extraction import Extracted, extract
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.reading import read
from lilo_jax.grading.workers import Grade, GradingWorkers
from lilo_jax.questions import Question, Verdict
from lilo_jax.storage.json_lines import read_records
from lilo_jax.storage.paths import AnyPath
from lilo_jax.types import Completions


@dataclasses.dataclass(frozen=True)
class Response:
    """One sample of a question.

    Attributes:
        text: what the model wrote.
        tokens: generated, the end token included.
        ended: False if it was cut off.
        verdict: of the grader.
        extracted: the answer that the grader found.
        rule: by which it was found.
    """

    text: str
    tokens: int
    ended: bool
    verdict: Verdict
    extracted: str = ""
    rule: str = ""


@dataclasses.dataclass(frozen=True)
class Generations:
    """All samples of one question."""

    question: Question
    responses: tuple[Response, ...]

    def record(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        responses = [dataclasses.asdict(r) | {"verdict": r.verdict.value} for r in self.responses]
        return {"question": dataclasses.asdict(self.question), "responses": responses}

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Generations":
        """The inverse of `record`."""
        responses = (Response(**(r | {"verdict": Verdict(r["verdict"])})) for r in record["responses"])
        return cls(Question(**record["question"]), tuple(responses))


def read_generations(path: AnyPath) -> list[Generations]:
    """Of a file of records; raises `UsageError` with the line if one is none."""
    if not path.is_file():
        raise UsageError(f"no generations at {path}: pass a file that lilo eval or a run has written")
    found = []
    for number, record in read_records(path):
        try:
            found.append(Generations.of(record))
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{path}, line {number}: not a record of generations") from None
    if not found:
        raise UsageError(f"{path} holds no generations")
    return found


def respond(
    generate: Callable[[Protocol], Iterator[Completions]],
    graders: ResponseGrader,
    grade: Grade,
    questions: Sequence[Question],
    protocol: Protocol,
) -> list[Generations]:
    """Samples responses to questions and grades them, the one while the other goes on.

    Args:
        generate: a protocol to the completions of each question, in their order.
        graders: text and judgements from completions.
        grade: the task's.
        questions: to be answered.
        protocol: how.
    """
    pending = []
    for question, completions in zip(questions, generate(protocol), strict=True):
        answers = [
            Answer(question, tokens[:length].tolist(), bool(ended))
            for tokens, length, ended in zip(completions.tokens, completions.lengths, completions.ended, strict=True)
        ]
        pending.append((question, answers, graders.submit(grade, answers)))
    judgements = iter(settled([graded for _, _, submitted in pending for graded in submitted]))
    return [
        Generations(
            question,
            tuple(
                _response(graded.response, len(answer.ids), answer.ended, next(judgements))
                for answer, graded in zip(answers, submitted, strict=True)
            ),
        )
        for question, answers, submitted in pending
    ]


def grade_again(workers: GradingWorkers, grade: Grade, generations: Iterable[Generations]) -> list[Generations]:
    """The same responses with the verdicts of another grader; nothing is sampled."""
    pending = []
    for one in generations:
        judgements = [judgement_of(workers, grade, one.question, r.text, ended=r.ended) for r in one.responses]
        pending.append((one, judgements))
    return [
        Generations(
            one.question,
            tuple(
                _response(r.text, r.tokens, r.ended, judgement.result())
                for r, judgement in zip(one.responses, judgements, strict=True)
            ),
        )
        for one, judgements in pending
    ]


def _response(text: str, tokens: int, ended: bool, judgement: Judgement) -> Response:
    return Response(text, tokens, ended, judgement.verdict, judgement.extracted, judgement.rule)


# --------------------------------------------------------------------------------------------------------- summary
def success_rates(generations: Sequence[Generations]) -> np.ndarray:
    """Share of correct responses among those that could be graded, float64 [Q]; NaN if none could."""
    attempts, correct = _counts(generations)
    return np.divide(correct, attempts, out=np.full(len(attempts), np.nan), where=attempts > 0)


def summarize(generations: Sequence[Generations]) -> dict[str, Any]:
    """What the responses say, JSON-ready.  Accuracies leave out responses whose grader failed.

    `accuracy` is pass@1, the mean over questions of the share of correct responses, with its standard error over
    questions, a bootstrap interval (`low`, `high`) and Wilson's; `pass@k` and `maj@k` for the powers of two up to the
    number of samples; shares of all responses by verdict, of truncated ones, and their mean tokens.
    """
    rates = success_rates(generations)
    measured = rates[~np.isnan(rates)]
    responses = [r for one in generations for r in one.responses]
    count = max(len(responses), 1)
    low, high = bootstrap(rates)
    wilson_low, wilson_high = wilson(float(measured.sum()), len(measured))
    return {
        "accuracy": float(measured.mean()) if measured.size else None,
        "standard_error": float(measured.std(ddof=1) / np.sqrt(len(measured))) if measured.size > 1 else None,
        "low": low if measured.size else None,
        "high": high if measured.size else None,
        "wilson": [wilson_low, wilson_high],
        "questions": len(measured),
        "samples": max((len(one.responses) for one in generations), default=0),
        **_at_powers(generations),
        "tokens_mean": sum(r.tokens for r in responses) / count,
        "truncated_fraction": sum(not r.ended for r in responses) / count,
        **{f"{v.value}_fraction": sum(r.verdict is v for r in responses) / count for v in Verdict},
    }


def by_difficulty(questions: Sequence[Question], rates: np.ndarray) -> dict[str, Any]:
    """Mean rate at each level, if all questions have one; None where nothing could be graded."""
    levels = [q.difficulty for q in questions if q.difficulty is not None]
    if len(levels) < len(questions):
        return {}
    found: dict[str, float | None] = {}
    for level in sorted(set(levels)):
        own = np.array([rate for rate, other in zip(rates, levels, strict=True) if other == level])
        found[str(level)] = float(np.nanmean(own)) if not np.isnan(own).all() else None
    return {"by_difficulty": found}


def _at_powers(generations: Sequence[Generations]) -> dict[str, Any]:
    attempts, correct = _counts(generations)
    samples = max((len(one.responses) for one in generations), default=0)
    found: dict[str, Any] = {"pass@k": {}, "maj@k": {}}
    k = 1
    while k <= samples:
        values = pass_at_k(attempts, correct, k=k)
        votes = np.array([_vote(one, k) for one in generations])
        for name, each in (("pass@k", values), ("maj@k", votes)):
            if not np.isnan(each).all():
                found[name][str(k)] = float(np.nanmean(each))
        k *= 2
    return found


def _counts(generations: Sequence[Generations]) -> tuple[np.ndarray, np.ndarray]:
    attempts = np.array([sum(not r.verdict.is_failure for r in one.responses) for one in generations])
    correct = np.array([sum(r.verdict is Verdict.CORRECT for r in one.responses) for one in generations])
    return attempts, correct


def _vote(one: Generations, k: int) -> float:
    correct = [None if r.verdict.is_failure else r.verdict is Verdict.CORRECT for r in one.responses]
    return maj_at_k([_ballot(r) for r in one.responses], correct, k=k)


def _ballot(response: Response) -> str | None:
    """The answer that a response votes for; a grader that names none leaves it to the rules of extraction."""
    if response.verdict is Verdict.NO_ANSWER:
        return None
    found = response.extracted or (extract(response.text) or Extracted(response.text, "")).text
    return shown(read(found))
