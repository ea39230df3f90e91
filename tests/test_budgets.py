"""What curves are drawn against: it begins with what was paid before the first step, whatever cut the run short."""

import dataclasses

import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Launch
from lilo_jax.curriculum.contract import Wants
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.budgets import BUDGETS, spent
from lilo_jax.storage.checkpoints import Checkpoints
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.training.run import learning_curve, run

GRADED = 3


@dataclasses.dataclass(frozen=True)
class Informed(Uniform):
    """Uniform, but the pool is graded beforehand and described by hidden states."""

    def build(self, *, pool_size, questions, samples):
        rule = super().build(pool_size=pool_size, questions=questions, samples=samples)
        return rule._replace(wants=Wants(grade=GRADED, hidden=4))


@pytest.mark.slow
def test_curves_begin_with_what_the_facts_cost_also_after_a_crash_and_a_resume(
    tiny_config, tiny_start, tmp_path, monkeypatch
):
    config = configuration.replace(
        tiny_config, num_steps=3, model__path=tiny_start, sft__steps=0, curriculum=Informed(), algorithm=Rloo(),
        evaluation__every=1,
    )  # fmt: skip
    path = str(tmp_path / "run")
    with monkeypatch.context() as crashing:  # after the facts are on record, before there is a checkpoint
        crashing.setattr(Checkpoints, "save", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, Launch(output_dir=path))
    run(config, Launch(output_dir=path, stop_at=2))
    directory = run(config, Launch(output_dir=path)).directory
    ledger, timings, grading = (directory.read(name) for name in ("ledger", "timings", "grading"))
    for records in (ledger, timings, grading):
        assert [record["step"] for record in records] == [-1, 0, 1, 2]
    curve, first = learning_curve(directory, "test"), ledger[0]
    assert first["screen/generated"] >= GRADED * 64
    assert first["features/scored"] > 0
    assert curve["generated_tokens"][0] == curve["screen/generated"][0] == first["screen/generated"]
    assert curve["prefilled_tokens"][0] == first["screen/prefilled"] > 0
    assert curve["scored_tokens"][0] == first["features/scored"]
    assert curve["flops"][0] == first["screen/flops"] + first["features/flops"] > 0
    assert curve["seconds"][0] == timings[0]["features"] > 0
    assert grading[0]["answers"] > 0
    assert curve["grader_seconds"][0] == grading[0]["seconds"] > 0
    assert (curve["steps"][0], curve["trained_tokens"][0]) == (0, 0)
    for i, record in enumerate(ledger):
        assert curve["generated_tokens"][i] == record["screen/generated"] + record["train/generated"]
    assert all((curve[name][1:] > curve[name][:-1]).all() for name in ("seconds", "flops"))


def recorded(path, **records):
    directory = RunDirectory(path)
    for name, own in records.items():
        for record in own:
            directory.append(name, record)
    return directory


def test_a_run_without_such_a_record_begins_with_nothing(tmp_path):
    directory = recorded(
        tmp_path,
        ledger=[{"step": 0, "train/generated": 5}, {"step": 1, "train/generated": 9}],
        timings=[{"step": 0, "sample": 1.0, "compile": 7.0}, {"step": 1, "sample": 0.5}],
    )
    found = spent(directory)
    assert set(found) == set(BUDGETS)
    assert found["generated_tokens"].tolist() == [0, 5, 9]
    assert found["seconds"].tolist() == [0.0, 1.0, 1.5]
    assert found["grader_seconds"].tolist() == [0.0, 0.0, 0.0]
    assert found["steps"].tolist() == [0, 1, 2]


def test_exact_success_rates_take_no_seconds_of_training(tmp_path):
    timings = [{"step": 0, "sample": 1.0, "truth": 60.0, "audit": 8.0}]
    assert spent(recorded(tmp_path, ledger=[{"step": 0}], timings=timings))["seconds"].tolist() == [0.0, 1.0]
