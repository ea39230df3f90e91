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

    for name in ("collect", "admit", "prepare", "update"):
        monkeypatch.setattr(trainer, name, guarded(name))
    config = configuration.replace(tiny_config, model__path=tiny_start, sft__steps=0, num_steps=2)
    assert run(config, Launch(output_dir=str(tmp_path / "run"))).done
