"""RL post-training of language models in JAX that chooses which questions to train on.

The names of `__all__` are the face of the library: each has an example that a test runs, and a change to one stands in
CHANGELOG.md.  `lilo_jax.curriculum` has the parts of which a rule of your own is made.  Everything else may change from
one version to the next.

    import lilo_jax

    config = lilo_jax.replace(lilo_jax.Config(), num_steps=150, rollout__questions=8)
    result = lilo_jax.run(config, lilo_jax.Launch(output_dir="runs/mine"))
    print(result.curve("test")["accuracy"])
"""

import importlib.metadata

try:  # which pairs of jax and flax go together no requirement can say: flax 0.12.8 needs what jax 0.11.1 took away
    importlib.import_module("flax.nnx")
except (AttributeError, ImportError) as error:
    found = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in ("flax", "jax"))
    raise ImportError(f"{found} do not go together: pip install --upgrade flax") from error

from lilo_jax.config import Config, Launch, replace
from lilo_jax.curriculum import compose, learnability
from lilo_jax.curriculum.contract import Curriculum
from lilo_jax.errors import RunError, UsageError
from lilo_jax.questions import Question, Task, Verdict
from lilo_jax.report.html import write_report
from lilo_jax.report.speedup import Curve, speedup
from lilo_jax.report.summary import format_table, summarize
from lilo_jax.rl.contract import Algorithm
from lilo_jax.training.run import Result, learning_curve, load, run
from lilo_jax.types import GroupStatistics

__all__ = [
    "Algorithm",
    "Config",
    "Curriculum",
    "Curve",
    "GroupStatistics",
    "Launch",
    "Question",
    "Result",
    "RunError",
    "Task",
    "UsageError",
    "Verdict",
    "compose",
    "format_table",
    "learnability",
    "learning_curve",
    "load",
    "replace",
    "run",
    "speedup",
    "summarize",
    "write_report",
]
__version__ = "0.1.0"
