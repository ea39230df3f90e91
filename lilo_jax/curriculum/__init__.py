"""Curricula: which questions to roll out, and which groups to train on.

A rule is a composition of parts (`composition.py`); each has a file in `rules/`.  To add one: a file with a frozen
dataclass of its settings whose `build` returns a `Curriculum`, its test, and a line in `CURRICULA`.  One of your own
outside the package needs no line: `--curriculum package.module:ClassName`.
"""

from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.curriculum.rules.uniform import Uniform

CURRICULA = {
    "uniform": Uniform,
    "lilo": Lilo,
    "sfl_buffer": SflBuffer,
}
