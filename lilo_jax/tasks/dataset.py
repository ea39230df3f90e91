"""Questions of your own: a JSON-lines, JSON, Parquet, CSV or Arrow file, a directory of them, or a hub data set.

The answer is a number or a string, or a solution whose answer is boxed or follows ####.  The gold answers (or
solutions) are the demonstrations for supervised fine-tuning.  Splits that the data set names are used as they are;
what is missing is held out of the training rows, the same questions for every seed.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from lilo_jax.bounds import Whole
from lilo_jax.errors import UsageError
from lilo_jax.grading import grader
from lilo_jax.grading.extraction import gold_answer
from lilo_jax.questions import Question, Task
from lilo_jax.tasks.identity import check_ids, read_questions, repeats
from lilo_jax.tasks.prompts import prompt_style
from lilo_jax.tasks.published import hold_out, worked
from lilo_jax.tasks.rows import Row, Source, is_plain, split_files, split_names

NO_SOURCE = Source("", "")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Where the questions are and what their columns are called."""

    path: str = ""
    """file, directory with files named after their split, or hub id"""
    revision: str = ""
    """branch, tag or commit of a hub data set"""
    question: str = "question"
    """column that holds the question"""
    answer: str = "answer"
    """column that holds the answer, a number or a string"""
    solution: str = ""
    """column that holds a worked solution, if there is one: what fine-tuning imitates"""
    difficulty: str = ""
    """column that holds a number for the difficulty, if there is one; for reports only"""
    template: str = "plain"
    """how a question becomes a prompt: the name of a style, plain, none, vineppo, qwen_math or r1, or a text with
    {question} in it"""
    grader: str = "default"
    """default, paper, exact or math_verify"""
    validation: Whole = 0
    """questions held out for validation; 0 takes a tenth"""
    test: Whole = 0
    """questions held out for the test; 0 takes a tenth"""
    longest: Whole = 0
    """tokens of a prompt; questions with longer ones are left out of every split.  0: no bound"""
    shots: Whole = 0
    """worked examples before every question: training questions with their solutions, which are then not trained on;
    turns of the chat where prompts are put into a chat template"""

    NEW_TOKENS: ClassVar[int] = 256
    """what a response may need, from a model that shows its work"""

    def test_questions(self) -> list[Question]:
        """The rows that the data set names test; all rows, if it names no splits."""
        splits = self._given_splits(("test",))
        return splits["test"]

    def build(self, seed: int) -> Task:
        """Reads the rows and splits them."""
        named = split_names(NO_SOURCE, self.path, revision=self.revision) if self.path else set()
        grade, given = grader(self.grader), self._given_splits(("train", *sorted(named & {"validation", "test"})))
        missing = [name for name in ("validation", "test") if name not in given]
        train = given["train"]
        tenth = max(len(train) // 10, 1)
        sizes = [getattr(self, name) or tenth for name in missing]
        if sum(sizes) >= len(train):
            wanted = " and ".join(f"{size} for {name}" for size, name in zip(sizes, missing, strict=True))
            raise UsageError(
                f"{self.path} has {len(train)} questions, too few to hold out {wanted}; give more questions or lower "
                f"--task.validation and --task.test"
            )
        held_out = {}
        for name, size in zip(missing, sizes, strict=True):
            train, held_out[name] = hold_out(train, size)
        shots: Sequence[tuple[str, str]] = ()
        if self.shots:
            train, shots = worked(train, self.shots)
        held_out["train"] = train
        splits = {name: (given | held_out)[name] for name in ("validation", "test", "train")}
        demonstrations = [(q.prompt, q.solution or q.answer) for q in splits["train"]]
        return Task(splits, demonstrations, grade, unique_answers=False, shots=shots)

    def _given_splits(self, names: Sequence[str]) -> dict[str, list[Question]]:
        """The questions of some splits; of files that name none, all of them."""
        prompt_style(self.template)  # a mistake in it is found before the data are
        if not self.path:
            raise UsageError("no data: pass --task.path FILE (JSON lines, Parquet, ...), a directory or a hub id")
        files = {name: split_files(NO_SOURCE, self.path, name, revision=self.revision) for name in names}
        splits = {name: read_questions(self, paths) for name, paths in files.items()}
        if repeat := next(repeats(splits), None):
            raise UsageError(f"{repeat.message}; remove one")  # it could stand on both sides of a split
        for questions in splits.values():
            check_ids(questions)
        return splits

    def parse(self, row: Row) -> Question:
        """The question of a row, its prompt still empty."""
        if "reward_model" in row.values and self.question == Dataset.question and self.question not in row.values:
            return _of_verl(row)
        text, answer = row.first(self.question), row.first(self.answer)
        if not isinstance(text, str) or not is_plain(answer):
            raise UsageError(f"{row.where}: {self.question!r} must be a string, {self.answer!r} a string or a number")
        if not text.strip() or not str(answer).strip():
            raise UsageError(f"{row.where}: empty {self.question!r} or {self.answer!r}")
        gold = gold_answer(str(answer)) or str(answer)
        solution = row.text(self.solution) if self.solution else str(answer) if gold != str(answer).strip() else ""
        level = row.number(self.difficulty) if self.difficulty else None
        return Question(prompt="", answer=gold, difficulty=level, text=text, solution=solution)


def _of_verl(row: Row) -> Question:
    """The question of a row as verl prepares them: turns, the right answer, and where the question is from.

    {"prompt": [{"role": "user", "content": ...}], "reward_model": {"ground_truth": ...}, "data_source": ...}; the
    question is what the user says last, and turns before it, such as a system's, are left to --tokenizer.system.
    """
    turns, reward = row.first("prompt"), row.first("reward_model")
    said = [turn["content"] for turn in turns if _is_user(turn)] if isinstance(turns, list) else []
    answer = reward.get("ground_truth") if isinstance(reward, dict) else None
    if not said or not said[-1].strip() or not is_plain(answer) or not str(answer).strip():
        raise UsageError(
            f"{row.where}: a row with 'reward_model' needs a 'prompt' of turns with a user's, and a 'ground_truth' in "
            f"'reward_model', or --task.question and --task.answer to name other columns"
        )
    gold, source = gold_answer(str(answer)) or str(answer), row.values.get("data_source")
    return Question(prompt="", answer=gold, text=said[-1].strip(), category=source if isinstance(source, str) else "")


def _is_user(turn: object) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "user" and isinstance(turn.get("content"), str)
