"""How often a model solves each question of a task: for other trainers, and to leave out what teaches nothing.

One JSON line a question, written as it is known; the same call goes on where it was stopped.  A set that is filtered by
success rate is smaller, and smaller sets train differently: beside it comes a random one of the same size.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lilo_jax.errors import UsageError
from lilo_jax.evaluation.generations import Generations, respond
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import ResponseGrader
from lilo_jax.grading.workers import GradingWorkers
from lilo_jax.pretrained.inference import generate, load
from lilo_jax.pretrained.sources import PretrainedModel, decoder_config
from lilo_jax.questions import Question, Task, Verdict
from lilo_jax.storage.files import append_line, write_whole
from lilo_jax.storage.json_lines import read_records, to_json, write_records
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers import prompt_ids, turns
from lilo_jax.tokenizers.lengths import Asked, check_lengths
from lilo_jax.types import Completions

BLOCK = 64
"""Questions of one device call, after which their lines are written."""


def measure(
    source: PretrainedModel,
    task: Task,
    split: str,
    protocol: Protocol,
    output: AnyPath,
    *,
    chat: bool = False,
    system: str = "",
    dtype: str = "float32",
    workers: int = 0,
) -> list[dict[str, Any]]:
    """Rolls out every question of a split that `output` has no line of, and returns all lines.

    A line has `id`, `question`, `answer`, `attempts` (rollouts that a grader came to a verdict about), `successes`, and
    `tokens` generated.  Rollouts do not depend on where an earlier call stopped.

    Args:
        source: the model.
        task: with the questions.
        split: of the task.
        protocol: how responses are sampled.
        output: JSON-lines file; OUTPUT.settings.json beside it says how it came about.
        chat, system: as in `lilo_jax.pretrained.suites.evaluate_suites`.
        dtype: of activations.
        workers: processes that grade.

    Raises:
        UsageError: the file was made with other settings or questions.
    """
    if split not in task.splits:
        raise UsageError(f"the task has no split {split!r}; it has {', '.join(task.splits)}")
    questions, tokenizer = task.splits[split], source.tokenizer()
    way = turns(chat=chat, system=system, shots=task.shots)
    asked = {split: Asked(questions, protocol.max_new_tokens, "--max-new-tokens", bounded=False)}
    check_lengths(tokenizer, asked, decoder_config(source).context_length, chat=way)
    prompts = [prompt_ids(tokenizer, question.prompt, chat=way) for question in questions]
    known = _known(output, questions)
    if len(known) < len(questions):
        loaded = load(source, dtype=dtype, tokenizer=tokenizer, stop=protocol.stop)
        with GradingWorkers(count=workers) as grading:
            graders = ResponseGrader(grading, tokenizer, protocol.stop)
            for start in range(len(known), len(questions), BLOCK):
                part = questions[start : start + BLOCK]

                def completions(
                    protocol: Protocol, start: int = start, end: int = start + len(part)
                ) -> Iterator[Completions]:
                    rows = BLOCK * protocol.samples
                    return generate(loaded, prompts[:end], protocol, rows=rows, first=start)

                for one in respond(completions, graders, task.grade, part, protocol):
                    known.append(_line(one))
                    append_line(output, to_json(known[-1], ensure_ascii=False))
    return known


def settle(output: AnyPath, settings: dict[str, Any]) -> None:
    """Notes how a file comes about; raises `UsageError` if it came about otherwise."""
    path, text = output.with_name(f"{output.name}.settings.json"), to_json(settings, indent=1) + "\n"
    if output.exists() and not path.exists():
        raise UsageError(f"{output} exists and is no file of pass rates: pass another --output")
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise UsageError(f"{output} was made with other settings, which are in {path.name}: pass another --output")
    write_whole(path, text)


def keep(lines: Sequence[dict[str, Any]], low: float, high: float, output: AnyPath, seed: int) -> int:
    """Writes OUTPUT.kept.jsonl, the questions with low <= p <= high, and OUTPUT.control.jsonl, as many at random.

    Both are data sets of questions and answers.  Questions of which no rollout was graded are in neither's choice.

    Returns:
        How many were kept.
    """
    rated = [line for line in lines if line["attempts"]]
    kept = [line for line in rated if low <= line["successes"] / line["attempts"] <= high]
    drawn = np.random.default_rng(seed).permutation(len(rated))[: len(kept)]
    control = [rated[i] for i in sorted(drawn.tolist())]
    for name, chosen in (("kept", kept), ("control", control)):
        columns = ("id", "question", "answer")
        rows = ({column: line[column] for column in columns} for line in chosen)
        write_records(output.with_name(f"{output.stem}.{name}.jsonl"), rows)
    return len(kept)


def histogram(lines: Sequence[dict[str, Any]]) -> str:
    """How many questions were never solved, sometimes and always, as text."""
    rated = [line for line in lines if line["attempts"]]
    never = sum(line["successes"] == 0 for line in rated)
    always = sum(line["successes"] == line["attempts"] for line in rated)
    mean = np.mean([line["successes"] / line["attempts"] for line in rated]) if rated else 0.0
    mixed = len(rated) - never - always
    return f"{len(rated)} questions, mean {mean:.3f}: {never} never solved, {mixed} sometimes, {always} always"


def _line(one: Generations) -> dict[str, Any]:
    verdicts = [response.verdict for response in one.responses]
    return {
        "id": one.question.id,
        "question": one.question.text or one.question.prompt,
        "answer": one.question.answer,
        "attempts": sum(not verdict.is_failure for verdict in verdicts),
        "successes": sum(verdict is Verdict.CORRECT for verdict in verdicts),
        "tokens": sum(response.tokens for response in one.responses),
    }


def _known(output: AnyPath, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The lines that are there; a last one that was cut off is taken away."""
    if not output.exists():
        return []
    content = output.read_bytes()
    if content and not content.endswith(b"\n"):
        write_whole(output, content[: content.rfind(b"\n") + 1])
    found = [record for _, record in read_records(output)]
    if [line.get("id") for line in found] != [question.id for question in questions[: len(found)]]:
        raise UsageError(f"{output} holds other questions than the task: pass another --output")
    return found
