"""The journal of verdicts: a step that is taken again believes what was found the first time."""

import collections
import json
import multiprocessing
import os
import pathlib
import shutil

import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.grading.journal import Asked, Journal
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.workers import GradingWorkers
from lilo_jax.questions import Question, Verdict
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tasks.chain import Chain
from lilo_jax.training.run import run

CLOCK = "LILO_JAX_TEST_CLOCK"


class Fickle:
    """Judges by a file that says what time it is: before noon all is correct, afterwards all is wrong."""

    def __init__(self, path):
        self.path = path

    def quick(self, question, response):
        return None

    def judge(self, question, response):
        noon = pathlib.Path(self.path).read_text() == "noon"
        return Judgement(Verdict.WRONG if noon else Verdict.CORRECT, extracted=response, rule="clock")

    def __call__(self, question, response):
        return self.judge(question, response).verdict


class FickleChain(Chain):
    """The chain task with that grader."""

    def build(self, seed):
        return super().build(seed)._replace(grade=Fickle(os.environ[CLOCK]), unique_answers=False)


@pytest.fixture
def clock(tmp_path, monkeypatch):
    path = tmp_path / "clock"
    path.write_text("morning")
    monkeypatch.setenv(CLOCK, str(path))
    return path


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "verdicts")


def test_a_step_taken_again_finds_what_was_written_and_another_does_not(journal, tmp_path):
    found = [Judgement(Verdict.CORRECT, "4", "box", "equal", 0.5), Judgement(Verdict.TIMEOUT, reason="slow\nline")]
    journal.turn_to(3)
    asked = [journal.ask("a"), journal.ask("a"), journal.ask("b")]
    assert asked == [Asked(3, "a", 1), Asked(3, "a", 2), Asked(3, "b", 1)]
    for one, judgement in zip(asked, [*found, found[0]], strict=True):
        assert journal.known(one) is None
        journal.write(one, judgement)
    again = Journal(tmp_path / "verdicts")
    again.turn_to(3)
    assert [again.known(again.ask(name)) for name in "aab"] == [*found, found[0]]
    assert again.known(again.ask("b")) is None
    again.turn_to(4)
    assert again.known(again.ask("a")) is None
    again.turn_to(3)
    assert again.known(again.ask("a")) == found[0]


def test_no_changed_line_is_believed(journal, tmp_path):
    journal.turn_to(0)
    for name in "ab":
        journal.write(journal.ask(name), Judgement(Verdict.WRONG, "5"))
    (file,) = (tmp_path / "verdicts").iterdir()
    content = file.read_bytes()
    first, second = content.splitlines(keepends=True)
    for bit in range(8 * len(first)):
        changed = bytearray(first)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bytes(changed) + second)
        journal.turn_to(0)
        assert journal.known(Asked(0, "a", 1)) in (None, Judgement(Verdict.WRONG, "5"))
    for size in range(len(first), len(content)):
        file.write_bytes(content[:size])
        journal.turn_to(0)
        assert journal.known(Asked(0, "a", 1)) == Judgement(Verdict.WRONG, "5")
        journal.write(journal.ask("c"), Judgement(Verdict.CORRECT, "6"))
        journal.turn_to(0)
        assert journal.known(Asked(0, "c", 1)) == Judgement(Verdict.CORRECT, "6")


def test_only_steps_that_no_checkpoint_brings_back_are_forgotten(journal, tmp_path):
    for step in (-1, 0, 4, 5, 1_000_000):
        journal.turn_to(step)
        journal.write(journal.ask("a"), Judgement(Verdict.WRONG))
    journal.forget_before(5)
    left = sorted(p.name for p in (tmp_path / "verdicts").iterdir())
    assert left == ["step_000005.jsonl", "step_1000000.jsonl"]


def test_a_verdict_is_told_when_it_is_on_record_and_one_that_cannot_be_is_not(journal, clock, tmp_path):
    with GradingWorkers(count=1) as grading:
        grading.keep(journal)
        journal.turn_to(2)
        assert grading.submit(Fickle(str(clock)), Question("", "1"), "4").result().verdict is Verdict.CORRECT
        assert len((tmp_path / "verdicts" / "step_000002.jsonl").read_text().splitlines()) == 1
        (tmp_path / "verdicts" / "step_000003.jsonl").symlink_to(tmp_path / "elsewhere")
        journal.turn_to(3)
        with pytest.raises(OSError, match="symbolic link"):
            grading.submit(Fickle(str(clock)), Question("", "2"), "4").result()


def test_processes_are_ready_when_they_were_started(clock):
    with GradingWorkers(count=2) as grading:
        grading.start(Fickle(str(clock)))
        assert len(multiprocessing.active_children()) >= 2
    with GradingWorkers() as grading:
        grading.start(lambda question, response: Verdict.CORRECT)
        assert grading._running is None


def test_workers_believe_the_journal_and_asks_for_the_rest(journal, clock):
    grade, questions = Fickle(str(clock)), [Question("", str(i)) for i in range(3)]
    with GradingWorkers(count=1) as grading:
        grading.keep(journal)
        journal.turn_to(7)
        assert [grading.submit(grade, q, "4").result().verdict for q in questions[:2]] == [Verdict.CORRECT] * 2
    clock.write_text("noon")
    with GradingWorkers(count=1) as grading:
        grading.keep(journal)
        journal.turn_to(7)
        verdicts = [grading.submit(grade, q, "4").result().verdict for q in questions]
        assert verdicts == [Verdict.CORRECT, Verdict.CORRECT, Verdict.WRONG]
        journal.turn_to(8)
        assert grading.submit(grade, questions[0], "4").result().verdict is Verdict.CORRECT  # remembered, as before


def test_a_step_taken_again_books_the_graders_seconds_once(journal, clock):
    """The seconds of the first time went with its records; equal answers took them once."""
    spent = []
    for _ in range(2):
        with GradingWorkers(count=1) as grading:
            grading.keep(journal)
            journal.turn_to(7)
            for _ in range(3):
                grading.submit(Fickle(str(clock)), Question("", "1"), "4").result()
            spent.append(grading.take_counts().seconds)
    assert spent[0] == spent[1] > 0


@pytest.mark.slow
def test_steps_taken_again_do_not_depend_on_the_clock(tiny_config, tiny_start, clock, tmp_path):
    """Only step 4 is saved of a run that got to 6: 4 and 5 get the morning's verdicts again, later ones noon's."""
    config = configuration.replace(
        tiny_config,
        task=FickleChain(**{f: getattr(tiny_config.task, f) for f in ("pool", "validation", "test", "longer")}),
        num_steps=8, model__path=tiny_start, sft__steps=0, storage__save_every=4, evaluation__every=4,
        evaluation__samples=1,
    )  # fmt: skip
    path = tmp_path / "run"
    directory = run(config, Launch(output_dir=str(path), stop_at=6, graders=1)).directory
    before = directory.rollouts()
    shutil.rmtree(directory.checkpoints_path / "6")
    clock.write_text("noon")
    run(config, Launch(output_dir=str(path), graders=1))
    after = RunDirectory(path).rollouts()

    def verdicts(rollouts, step):
        return collections.Counter(r["verdict"] for r in rollouts[step] if r["verdict"] != "no_answer")

    for step in (4, 5):
        assert after[step] == before[step]
        assert set(verdicts(after, step)) == {"correct"}
    assert "wrong" in verdicts(after, 7)
    kept = sorted((path / "verdicts").iterdir())
    assert [p.name for p in kept] == [f"step_00000{step}.jsonl" for step in (4, 5, 6, 7)]
    assert all(json.loads(line)["verdict"] for file in kept for line in file.read_text().splitlines())
