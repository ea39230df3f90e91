"""Answers graded per second, of an easy and of a hard workload, beside `math-verify` alone on the same answers.

    python -m benchmarks.grading_speed                   # two workers
    python -m benchmarks.grading_speed --workers 8 --rounds 5

`benchmarks/grading/easy.jsonl` holds 1,000 answers that the exact comparison decides (numbers, fractions, tuples,
intervals, units; a third of them wrong), `hard.jsonl` 400 that need algebra (polynomials, radicals, trigonometry,
logarithms, complex numbers).  All are different, so that nothing is remembered; they stand at the end of solutions of
3 to 12 sentences.  Every round starts new workers, whose start is timed apart; medians and ranges over rounds are
printed, and how many verdicts of `math_verify` differ from those of `default`.
"""

import argparse
import pathlib
import statistics
import time

from lilo_jax.grading import GRADERS
from lilo_jax.grading.workers import GradingWorkers, judge_all
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.questions import Question, Verdict
from lilo_jax.storage.json_lines import read_records

WORKLOADS = pathlib.Path(__file__).parent / "grading"
WARM = (Question("", "x+y=1"), r"\boxed{2x+2y=2}")
"""Needs a worker, as an equation is more than its value at points."""


def answers_of(name: str) -> list[tuple[Question, str]]:
    """The answers of a workload."""
    records = (record for _, record in read_records(WORKLOADS / f"{name}.jsonl"))
    return [(Question("", record["gold"]), record["response"]) for record in records]


def round_of(grader: str, answers: list[tuple[Question, str]], workers: int) -> tuple[float, float, list[Verdict]]:
    """Seconds until all workers are up, answers per second after that, and the verdicts."""
    grade = GRADERS[grader]
    with GradingWorkers(count=workers) as grading:
        started = time.perf_counter()
        judge_all(grading, grade, [WARM] * workers)
        up = time.perf_counter()
        verdicts = [found.verdict for found in judge_all(grading, grade, answers)]
        return up - started, len(answers) / (time.perf_counter() - up), verdicts


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for workload in ("easy", "hard"):
        answers = answers_of(workload)
        found: dict[str, list[tuple[float, float, list[Verdict]]]] = {"default": [], "math_verify": []}
        for _ in range(arguments.rounds):  # in alternation
            for grader, rounds in found.items():
                rounds.append(round_of(grader, answers, arguments.workers))
        for grader, rounds in found.items():
            rates = [rate for _, rate, _ in rounds]
            start = statistics.median(seconds for seconds, _, _ in rounds)
            print(
                f"{workload}, {grader}: {statistics.median(rates):.0f} answers/s [{min(rates):.0f}, {max(rates):.0f}], "
                f"{arguments.workers} workers up after {start:.1f} s"
            )
        differ = sum(a is not b for a, b in zip(found["default"][0][2], found["math_verify"][0][2], strict=True))
        print(f"{workload}: {differ} of {len(answers)} verdicts of math_verify differ from default's")


if __name__ == "__main__":
    exit_with_message(main)
