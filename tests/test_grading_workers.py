"""The workers that grade: deadlines, lost workers, order, memory; and from tokens to responses."""

import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.responses import Answer, ResponseGrader
from lilo_jax.grading import GRADERS
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.workers import GradingWorkers, check_grade, judge_all
from lilo_jax.questions import Question, Verdict
from lilo_jax.tasks import chain
from lilo_jax.tasks.chain import Chain
from lilo_jax.tokenizers import SentencePiece
from lilo_jax.training.run import run


@dataclasses.dataclass(frozen=True)
class Slow:
    """A grader whose every answer goes to a worker.

    "hang" hangs, "raise" raises, "die N" kills its worker N times, "sleep" names its worker by a file, and sleeps.
    """

    directory: str = ""

    def quick(self, question, response):
        return None

    def judge(self, question, response):
        if response == "hang":
            while True:
                pass
        if response == "raise":
            raise RuntimeError("the grader broke")
        if response.startswith("die "):
            deaths = pathlib.Path(self.directory) / response.replace(" ", "_")
            count = int(deaths.read_text()) if deaths.exists() else 0
            if count < int(response.split()[1]):
                deaths.write_text(str(count + 1))
                os.kill(os.getpid(), signal.SIGKILL)
        if response == "sleep":
            (pathlib.Path(self.directory) / str(os.getpid())).touch()
            time.sleep(1.0)
        return Judgement(Verdict.CORRECT if response == question.answer else Verdict.WRONG, response)

    def __call__(self, question, response):
        return self.judge(question, response).verdict


def question(answer: str) -> Question:
    return Question(prompt="", answer=answer)


def verdicts(grading, grade, pairs):
    return [found.verdict for found in judge_all(grading, grade, pairs)]


MIXED = [(question("12"), "12"), (question("12"), "13"), (question("12"), "raise"), (question("a"), "a")] * 5
EXPECTED = [Verdict.CORRECT, Verdict.WRONG, Verdict.ERROR, Verdict.CORRECT] * 5


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_verdicts_depend_on_neither_order_nor_number_of_workers_nor_earlier_answers(workers):
    with GradingWorkers(count=workers) as grading:
        assert verdicts(grading, Slow(), MIXED) == EXPECTED
        order = random.Random(0).sample(range(len(MIXED)), len(MIXED))
        assert verdicts(grading, Slow(), [MIXED[i] for i in order]) == [EXPECTED[i] for i in order]
        counts = grading.take_counts()
        assert counts.answers == 40
        assert counts.at_once == 0
        assert counts.remembered > 0
        assert grading.take_counts().answers == 0


def test_a_hung_answer_costs_its_deadline_and_nobody_elses():
    with GradingWorkers(count=2, deadline=1.5) as grading:
        assert verdicts(grading, Slow(), MIXED) == EXPECTED  # workers are up
        started = time.monotonic()
        hung = grading.submit(Slow(), question("1"), "hang")
        assert verdicts(grading, Slow(), [(question(str(i)), str(i)) for i in range(50)]) == [Verdict.CORRECT] * 50
        assert not hung.done()
        found = hung.result()
        assert time.monotonic() - started < 6  # the deadline, and pebble's own polling
        assert found.verdict is Verdict.TIMEOUT
        assert "1.5 seconds" in found.reason
        counts = grading.take_counts()
        assert (counts.timeouts, counts.lost) == (1, 0)
        assert 1.5 <= counts.seconds < 2.5
        assert verdicts(grading, Slow(), [(question("x"), "x")]) == [Verdict.CORRECT]  # a new worker took over
        assert grading.submit(Slow(), question("1"), "hang").result().verdict is Verdict.TIMEOUT  # never remembered


def test_what_a_grader_loads_is_no_part_of_a_deadline(tmp_path, monkeypatch):
    """The module takes twice the deadline: for the first worker, and for one that takes the place of another."""
    (tmp_path / "heavy.py").write_text(
        "import time\nfrom lilo_jax.questions import Verdict\ntime.sleep(2)\n"
        "def grade(question, response):\n"
        "    while response == 'hang':\n        pass\n"
        "    return Verdict.CORRECT if response == question.answer else Verdict.WRONG\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from heavy import grade

    with GradingWorkers(count=1, deadline=1.0) as grading:
        assert verdicts(grading, grade, [(question("1"), "1"), (question("1"), "2")]) == [
            Verdict.CORRECT,
            Verdict.WRONG,
        ]
        assert verdicts(grading, grade, [(question("1"), "hang")]) == [Verdict.TIMEOUT]
        assert verdicts(grading, grade, [(question("3"), "3")]) == [Verdict.CORRECT]


@pytest.mark.slow
def test_a_lost_answer_is_graded_again_and_blamed_the_second_time(tmp_path):
    grade = Slow(str(tmp_path))
    with GradingWorkers(count=1) as grading:
        assert grading.submit(grade, question("die 1"), "die 1").result().verdict is Verdict.CORRECT
        counts = grading.take_counts()
        assert (counts.lost, counts.graded_again, counts.timeouts) == (1, 1, 0)
        found = grading.submit(grade, question("die 9"), "die 9").result()
        assert found.verdict is Verdict.ERROR
        counts = grading.take_counts()
        assert (counts.lost, counts.graded_again) == (2, 1)
        assert grading.submit(grade, question("ok"), "ok").result().verdict is Verdict.CORRECT


@pytest.mark.slow
def test_a_worker_killed_from_outside_loses_no_answer(tmp_path):
    grade = Slow(str(tmp_path))
    with GradingWorkers(count=2) as grading:
        assert verdicts(grading, grade, MIXED) == EXPECTED
        grading.take_counts()
        futures = [grading.submit(grade, Question(str(i), "sleep"), "sleep") for i in range(2)]
        futures += [grading.submit(grade, question(str(i)), str(i)) for i in range(20)]
        os.kill(_one_named_in(tmp_path), signal.SIGKILL)
        assert [f.result().verdict for f in futures] == [Verdict.CORRECT] * 22
        counts = grading.take_counts()
        assert counts.lost == counts.graded_again == 1


def _one_named_in(directory: pathlib.Path) -> int:
    """The worker that has named itself first; it will sleep for a second."""
    until = time.monotonic() + 60
    while not (named := list(directory.iterdir())):
        assert time.monotonic() < until
        time.sleep(0.01)
    return int(named[0].name)


def _is_worker(process: psutil.Process) -> bool:
    """Whether it is a child of the fork server."""
    parent = process.parent()
    return parent is not None and any("forkserver" in part for part in parent.cmdline())


@pytest.mark.slow
def test_an_idle_worker_killed_from_outside_loses_no_answer():
    """With it all workers end; new ones take their place."""
    with GradingWorkers(count=2) as grading:
        assert verdicts(grading, Slow(), MIXED) == EXPECTED
        for p in psutil.Process().children(recursive=True):
            if _is_worker(p):
                os.kill(p.pid, signal.SIGKILL)
        time.sleep(1.0)
        answers = [(question(str(i)), str(i)) for i in range(20)]
        assert verdicts(grading, Slow(), answers) == [Verdict.CORRECT] * 20
        assert grading.take_counts().lost >= 1


@pytest.mark.slow
def test_workers_do_not_run_a_script_again(tmp_path):
    """Neither an unguarded one, nor is a grader of the script itself accepted."""
    script = tmp_path / "script.py"
    script.write_text(
        "from lilo_jax.grading.workers import GradingWorkers, check_grade\n"
        "from lilo_jax.grading import GRADERS\n"
        "from lilo_jax.questions import Question\n"
        "print('body')\n"
        "with GradingWorkers(count=2) as grading:\n"
        "    future = grading.submit(GRADERS['math_verify'], Question('', '5'), 'so 5')\n"
        "    print(future.result().verdict.value)\n"
        "def grade(question, response):\n"
        "    return None\n"
        "try:\n"
        "    check_grade(grade)\n"
        "except Exception as error:\n"
        "    print('not of the main script' in str(error))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["body", "correct", "True"], done.stderr


def test_what_is_no_verdict_is_an_error():
    with GradingWorkers() as grading:
        found = grading.submit(_truthful, question("1"), "1").result()
    assert found.verdict is Verdict.ERROR
    assert "no Verdict" in found.reason


def _truthful(question: Question, response: str):
    return True


def test_equal_responses_to_a_question_are_graded_once():
    with GradingWorkers(count=1) as grading:
        futures = [grading.submit(Slow(), question("7"), "7") for _ in range(8)]
        assert {f.result().verdict for f in futures} == {Verdict.CORRECT}
        assert grading.take_counts().remembered == 7


def test_what_costs_little_is_told_here_and_starts_no_process():
    with GradingWorkers() as grading:
        assert verdicts(grading, GRADERS["default"], [(question("1/2"), r"\boxed{0.5}"), (question("5"), "6")]) == [
            Verdict.CORRECT,
            Verdict.WRONG,
        ]
        assert verdicts(grading, _parity, [(question("2"), "4"), (question("2"), "three")]) == [
            Verdict.CORRECT,
            Verdict.ERROR,
        ]
        counts = grading.take_counts()
        assert (counts.answers, counts.at_once) == (4, 4)
        assert grading._running is None


def _parity(question: Question, response: str) -> Verdict:
    return Verdict.CORRECT if int(question.answer) % 2 == int(response) % 2 else Verdict.WRONG


def test_plain_functions_go_to_workers_if_there_are_some():
    with GradingWorkers(count=1) as grading:
        assert verdicts(grading, _parity, [(question("2"), "4"), (question("2"), "3"), (question("2"), "x")]) == [
            Verdict.CORRECT,
            Verdict.WRONG,
            Verdict.ERROR,
        ]
        assert grading.take_counts().at_once == 0


def test_a_grader_that_cannot_travel_is_refused_with_the_cure():
    with pytest.raises(UsageError, match="a function of a module"):
        check_grade(lambda question, response: Verdict.WRONG)
    check_grade(_parity)
    for grade in GRADERS.values():
        check_grade(grade)


@dataclasses.dataclass(frozen=True)
class MortalChain:
    """The chain task whose grader kills its worker at the fifth answer that it sees, once, with kill -9."""

    marker: str = ""

    def build(self, seed):
        task = Chain(pool=64, validation=16, test=16, longer=8, demonstrations=200).build(seed)
        return task._replace(grade=Mortal(self.marker))


@dataclasses.dataclass(frozen=True)
class Mortal:
    marker: str

    def __call__(self, question, response):
        seen = pathlib.Path(self.marker)
        count = int(seen.read_text() or 0) if seen.exists() else 9
        if count < 9:
            seen.write_text(str(count + 1))
        if count == 4:
            seen.write_text("9")
            os.kill(os.getpid(), signal.SIGKILL)
        return chain.grade(question, response)


def test_seconds_of_graders_are_counted():
    def slow(question, response):
        time.sleep(0.05)
        return Verdict.WRONG

    with GradingWorkers() as grading:
        grading.submit(slow, question("1"), "2").result()
        assert 0.05 <= grading.take_counts().seconds < 1
        assert grading.take_counts().seconds == 0


@pytest.mark.slow
def test_a_step_survives_the_kill_of_a_worker_and_says_so(tiny_config, tiny_start, tmp_path):
    """The lost answers are graded again: the run is the same as one in which nobody was killed."""
    runs = {}
    for name in ("killed", "spared"):
        marker = tmp_path / name
        if name == "killed":
            marker.write_text("0")
        task = MortalChain(marker=str(marker))
        config = configuration.replace(tiny_config, task=task, num_steps=3, model__path=tiny_start, sft__steps=0)
        launch = Launch(output_dir=str(tmp_path / f"run_{name}"), graders=1)
        result = run(config, launch)
        assert result.done
        runs[name] = result.directory
    for record in ("metrics", "eval", "ledger"):
        assert runs["killed"].read(record) == runs["spared"].read(record)
    counts = {name: directory.read("grading") for name, directory in runs.items()}
    assert [r["lost"] for r in counts["killed"]] == [r["graded_again"] for r in counts["killed"]] == [1, 0, 0]
    assert sum(r["lost"] for r in counts["spared"]) == 0
    assert all(r["answers"] > 0 and r["timeouts"] == 0 for r in counts["killed"])


# ------------------------------------------------------------------------------------------------------- responses
@pytest.fixture(scope="module")
def tokenizer():
    return SentencePiece.train(["12 34 . END", "56 78 90 a b c"], kind="char", vocab_size=64)


def _exact(question: Question, response: str) -> Verdict:
    if response == "a":
        raise RuntimeError("the grader broke")
    return Verdict.CORRECT if response == question.answer else Verdict.WRONG


@pytest.mark.parametrize("workers", [0, 1])
def test_completions_become_responses_and_verdicts(workers, tokenizer):
    end = tokenizer.end_ids[0]
    cases = [
        ("12", True, True, "12", Verdict.CORRECT),
        ("34", True, True, "34", Verdict.WRONG),
        ("12", False, False, "12", Verdict.NO_ANSWER),
        ("a", True, True, "a", Verdict.ERROR),
        ("12 . 3", True, True, "12", Verdict.CORRECT),
        ("12 . ", False, True, "12", Verdict.CORRECT),  # ended by the stop string: no end token to take off
    ]
    answers = [
        Answer(question("12"), [*tokenizer.encode(text), *([end] if with_end else [])], ended)
        for text, with_end, ended, _, _ in cases
    ]
    with GradingWorkers(count=workers) as grading:
        graded = ResponseGrader(grading, tokenizer, stop=(" .",)).submit(_exact, answers)
        found = [(one.response, one.judgement.result().verdict) for one in graded]
        assert found == [(text, verdict) for *_, text, verdict in cases]
        assert ResponseGrader(grading, tokenizer).submit(_exact, []) == []


def test_a_tokenizer_travels_to_another_process(tokenizer):
    import pickle

    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("12 34") == tokenizer.encode("12 34")
    assert again.end_ids == tokenizer.end_ids
