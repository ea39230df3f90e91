"""Compilation happens in the first step and its first evaluation, and never again."""

import time

import pytest
from directories import opened

from lilo_jax import config as configuration
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.grading.journal import Journal
from lilo_jax.keys import start_keys
from lilo_jax.pretrained.sources import open_model
from lilo_jax.processes.stop_request import StopRequest
from lilo_jax.storage.checkpoints import Checkpoints
from lilo_jax.storage.clock import PhaseClock, compilation
from lilo_jax.storage.ledger import Ledger
from lilo_jax.storage.progress import Progress
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check
from lilo_jax.training.recorder import Recorder
from lilo_jax.training.saver import Saver
from lilo_jax.training.trainer import evaluate_held_out, train


class CountingRecorder(Recorder):
    """Notes at the end of each step how many programs this process has compiled."""

    def __init__(self, *args):
        super().__init__(*args)
        self.compiled = []

    def write_step(self, *args):
        super().write_step(*args)
        self.compiled.append(compilation.programs)


@pytest.mark.slow
@pytest.mark.parametrize("curriculum", [Lilo(), Uniform()])
def test_steps_after_the_first_compile_nothing(tiny_config, tiny_start, tmp_path, curriculum):
    """PPO with a learning rate of its own, so that no earlier run has compiled these programs."""
    config = configuration.replace(
        tiny_config,
        model__path=tiny_start,
        sft__steps=0,
        num_steps=6,
        curriculum=curriculum,
        optimizer__learning_rate=1.5e-4,
        audit__questions=2,
        audit__samples=2,
    )
    start = open_model(tiny_start)
    assembly = assemble(config, check(config), tokenizer=start.tokenizer())
    ledger, directory = Ledger(), opened(tmp_path / "run", config, "never")
    params = start.weights(assembly.programs.model, assembly.mesh)
    facts = no_facts(len(assembly.pool.questions))
    state = assembly.programs.start(params, None, start_keys(config.seed), facts)
    evaluate_held_out(assembly, state, 0, ledger)
    before = compilation.programs
    recorder = CountingRecorder(directory, Progress("test", total=6))
    with Checkpoints(directory.checkpoints_path, keep=1) as checkpoints:
        journal = Journal(directory.path / "verdicts")
        train(
            assembly,
            state,
            ledger,
            directory=directory,
            saver=Saver(checkpoints, directory, journal, questions="", origin=""),
            recorder=recorder,
            journal=journal,
            clock=PhaseClock(),
            stop=StopRequest(grace=60),
            last_step=6,
        )
    first, *others = recorder.compiled
    assert first - before >= 4  # sampling, scoring, selection, update
    assert others == [first] * 5
    seconds = [record["compile"] for record in directory.read("timings")]
    assert seconds[0] > 0.1
    assert max(seconds[1:]) < 0.1


def test_time_spent_compiling_is_kept_out_of_the_phase(monkeypatch):
    clock = PhaseClock()
    with clock.phase("sample"):
        time.sleep(2e-3)  # no more can be compiling than has passed
        monkeypatch.setattr(compilation, "seconds", compilation.seconds + 1e-3)
    with clock.phase("grade"):
        pass
    taken = clock.take()
    assert taken["compile"] == pytest.approx(1e-3)
    assert taken["sample"] >= 0
    assert set(taken) == {"sample", "grade", "compile"}
    assert clock.take() == {}


def test_the_counter_sees_a_compilation_and_not_a_cached_call():
    import jax

    program = jax.jit(lambda x: x * 3 + 0.123)
    before = compilation.programs, compilation.seconds
    program(1.0)
    after = compilation.programs, compilation.seconds
    assert after[0] == before[0] + 1
    assert after[1] > before[1]
    program(2.0)
    assert (compilation.programs, compilation.seconds) == after
