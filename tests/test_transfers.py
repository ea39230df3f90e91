"""Nothing passes between host and device unnamed while a run takes a step."""

import functools

import jax
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.training import trainer
from lilo_jax.training.run import run


@pytest.mark.slow
def test_a_step_transfers_nothing_that_it_does_not_name(tiny_config, tiny_start, tmp_path, monkeypatch):
    seen = set()

    def guarded(name):
        part = getattr(trainer, name)

        @functools.wraps(part)
        def run_part(*arguments):
            guard = "disallow" if name in seen else "allow"  # the first call compiles, which transfers constants
            seen.add(name)
            with jax.transfer_guard(guard):
                return part(*arguments)

        return run_part

    for name in ("collect", "admit", "make_batch", "update"):
        monkeypatch.setattr(trainer, name, guarded(name))
    config = configuration.replace(tiny_config, model__path=tiny_start, sft__steps=0, num_steps=2)
    assert run(config, Launch(output_dir=str(tmp_path / "run"))).done


@pytest.mark.slow
def test_the_host_waits_for_the_device_only_where_it_needs_a_result(tiny_config, tiny_start, tmp_path, monkeypatch):
    """From the start of scoring to the step's books nothing is fetched and nothing awaited."""
    happened = []

    def noted(module, name, what):
        part = getattr(module, name)

        @functools.wraps(part)
        def run_part(*arguments, **named):
            happened.append(what)
            return part(*arguments, **named)

        monkeypatch.setattr(module, name, run_part)

    noted(jax, "device_get", "fetch")
    noted(jax, "block_until_ready", "wait")
    noted(trainer, "collect", "collect")
    noted(trainer, "update", "update")
    noted(trainer, "book", "book")
    config = configuration.replace(tiny_config, model__path=tiny_start, sft__steps=0, num_steps=4)
    config = configuration.replace(config, evaluation__every=100, storage__save_every=100)
    assert run(config, Launch(output_dir=str(tmp_path / "run"))).done
    steps = " ".join(happened).split("collect")[2:4]  # in the first one programs are compiled
    for step in steps:
        before, after = step.split("update")
        assert before.split() == ["fetch"] * 5  # proposal, lengths, completions, admission, its counts
        first, *others = after.split()
        assert first == "book"
        assert others.count("wait") == 1
        assert others.count("fetch") <= 2  # statistics that admission has waited for, and metrics of the step before
