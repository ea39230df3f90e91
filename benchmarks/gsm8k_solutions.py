"""The grader `default` on answers of four models to GSM8K's test questions, which their makers judged.

    python -m benchmarks.gsm8k_solutions FILE

FILE is OpenAI's example_model_solutions.jsonl (https://github.com/openai/grade-school-math): a line is an object with
`question`, `ground_truth`, and for each model its name with `solution` and `is_correct`.  Calculations in << >> are
left out, and "A: n" on the last line is read as "#### n".  Prints for each model and for all how many verdicts agree
with `is_correct`, the first disagreements, and the time of an answer.
"""

import argparse
import pathlib
import re
import time
from typing import Any, NamedTuple

from benchmarks.grading_speed import WARM
from lilo_jax.errors import UsageError
from lilo_jax.grading import GRADERS
from lilo_jax.grading.workers import GradingWorkers, judge_all
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.questions import Question, Verdict
from lilo_jax.storage.json_lines import read_records

MOST = 20
"""Disagreements that are shown."""
_CALCULATION = re.compile(r"<<.*?>>")
_LAST_LINE = re.compile(r"\nA: (?=[^\n]*$)")


class Labelled(NamedTuple):
    """One answer of a model, with its label and where it stands."""

    model: str
    line: int
    question: Question
    response: str
    is_correct: bool


def labelled(path: pathlib.Path) -> list[Labelled]:
    """All answers of a file; raises `UsageError` if it is not of the schema."""
    if not path.is_file():
        raise UsageError(f"no file at {path}: pass the path of OpenAI's example_model_solutions.jsonl")
    found = [answer for line, record in read_records(path) for answer in _answers(path, line, record)]
    if not found:
        raise UsageError(f"{path} holds no answers: pass the path of OpenAI's example_model_solutions.jsonl")
    return found


def _answers(path: pathlib.Path, line: int, record: dict[str, Any]) -> list[Labelled]:
    texts = [record.get(name) for name in ("question", "ground_truth")]
    models = {name: value for name, value in record.items() if name not in ("question", "ground_truth")}
    if not all(isinstance(text, str) for text in texts) or not models or not all(map(_is_answer, models.values())):
        raise UsageError(
            f'{path}, line {line}: expected {{"question", "ground_truth", and for each model '
            '{"solution": text, "is_correct": true or false}}, as in OpenAI\'s example_model_solutions.jsonl'
        )
    question = Question("", as_published(record["ground_truth"]), text=record["question"])
    return [
        Labelled(name, line, question, as_published(value["solution"]), value["is_correct"])
        for name, value in models.items()
    ]


def _is_answer(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("solution"), str) and isinstance(value.get("is_correct"), bool)
    )


def as_published(solution: str) -> str:
    """A solution as the training data of GSM8K has it, less its calculations."""
    return _LAST_LINE.sub("\n#### ", _CALCULATION.sub("", solution).rstrip())


def report(answers: list[Labelled], verdicts: list[Verdict]) -> list[str]:
    """Agreement of each model and of all, and the disagreements."""
    agreed = [(verdict is Verdict.CORRECT) == each.is_correct for each, verdict in zip(answers, verdicts, strict=True)]
    lines = []
    for model in [*dict.fromkeys(each.model for each in answers), "all"]:
        own = [same for each, same in zip(answers, agreed, strict=True) if model in (each.model, "all")]
        lines.append(f"{model}: {sum(own)} of {len(own)} verdicts agree with the label")
    for each, verdict, same in zip(answers, verdicts, agreed, strict=True):
        if not same:
            end = each.response[-60:].replace("\n", " ")
            label = "correct" if each.is_correct else "wrong"
            gold = each.question.answer.rpartition("####")[2].strip()
            lines.append(
                f"line {each.line}, {each.model}: {verdict.value}, labelled {label}; gold {gold!r}; ...{end!r}"
            )
    return lines[: len(lines) - agreed.count(False) + MOST]


def main() -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    answers = labelled(parser.parse_args().file)
    with GradingWorkers(count=1) as workers:
        judge_all(workers, GRADERS["default"], [WARM])
        started = time.perf_counter()
        asked = [(each.question, each.response) for each in answers]
        verdicts = [found.verdict for found in judge_all(workers, GRADERS["default"], asked)]
        seconds = time.perf_counter() - started
    print("\n".join(report(answers, verdicts)))
    print(f"{1e3 * seconds / len(answers):.2f} ms an answer")


if __name__ == "__main__":
    exit_with_message(main)
