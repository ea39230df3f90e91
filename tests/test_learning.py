"""Learning end to end: held-out accuracy rises with a LILO run, and not if its advantages are taken away."""

import dataclasses

import jax.numpy as jnp
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, ModelConfig, SftConfig, StorageConfig
from lilo_jax.evaluation.protocols import EvaluationConfig
from lilo_jax.rl.contract import Algorithm
from lilo_jax.rl.optimizer import OptimizerConfig
from lilo_jax.rl.rloo import Rloo
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.tasks.chain import Chain
from lilo_jax.training.run import run
from lilo_jax.training.sft import start_config

MARGIN = 0.08
"""Rise of test accuracy that counts as learning; two trial seeds rose by 0.17 and 0.19."""

CONFIG = Config(
    num_steps=80,
    task=Chain(pool=400, validation=16, test=128, longer=8, demonstrations=4000),
    model=ModelConfig(num_layers=1, embed_dim=32, num_heads=4, num_kv_heads=2, head_dim=16, mlp_dim=64),
    sft=SftConfig(steps=400),
    algorithm=Rloo(),
    rollout=RolloutConfig(questions=8, samples=8),
    optimizer=OptimizerConfig(learning_rate=2e-3),
    evaluation=EvaluationConfig(every=20, rows=128, splits=("test",)),
    storage=StorageConfig(save_every=1000, rollouts_every=0),
)


@dataclasses.dataclass(frozen=True)
class RlooWithoutAdvantages(Rloo):
    """RLOO whose advantages are all zero: everything runs as before, and nothing is learned."""

    def build(self) -> Algorithm:
        algorithm = super().build()

        def advantages(batch):
            found, returns = algorithm.advantages(batch)
            return jnp.zeros_like(found), returns

        return algorithm._replace(advantages=advantages)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("learning") / "sft")
    run(start_config(CONFIG), Launch(output_dir=path))
    return path


@pytest.mark.slow
def test_accuracy_on_held_out_questions_rises(start, tmp_path):
    config = configuration.replace(CONFIG, model__path=start, sft__steps=0)
    result = run(config, Launch(output_dir=str(tmp_path / "run")))
    accuracy = result.curve("test")["accuracy"]
    assert 0.2 < accuracy[0] < 0.6
    assert accuracy[-1] > accuracy[0] + MARGIN
    assert result.curve("test")["steps"].tolist() == [0, 20, 40, 60, 80]
    success = [r["curriculum/collected_success_mean"] for r in result.directory.read("metrics")]
    assert sum(success[-20:]) / 20 > sum(success[:20]) / 20 + MARGIN / 2


@pytest.mark.slow
def test_without_advantages_nothing_is_learned(start, tmp_path):
    config = configuration.replace(CONFIG, model__path=start, sft__steps=0, algorithm=RlooWithoutAdvantages())
    result = run(config, Launch(output_dir=str(tmp_path / "run")))
    accuracy = result.curve("test")["accuracy"]
    assert max(abs(accuracy - accuracy[0])) < MARGIN / 10
    metrics = result.directory.read("metrics")
    assert len(metrics) == 80
    assert all(r["policy/advantage_abs"] == 0 and r["policy/gradient_norm"] == 0 for r in metrics)
    assert sum(r["curriculum/collected_success_mean"] > 0 for r in metrics) > 60


@pytest.mark.slow
def test_lilo_admits_more_variance_than_it_collects(start, tmp_path):
    """The published mechanism, in a short run: admitted groups are more learnable than collected ones."""
    config = configuration.replace(CONFIG, model__path=start, sft__steps=0, num_steps=5)
    metrics = run(config, Launch(output_dir=str(tmp_path / "run"))).directory.read("metrics")
    for record in metrics:
        assert record["curriculum/groups_collected"] == 32
        assert record["curriculum/groups_admitted"] == 8
        assert record["curriculum/admitted_learnability_mean"] > 1.5 * record["curriculum/collected_learnability_mean"]
        assert (
            record["curriculum/admitted_zero_variance_fraction"] < record["curriculum/collected_zero_variance_fraction"]
        )
