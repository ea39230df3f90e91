"""Curricula: which questions to roll out, and which groups to train on.

To add one: a file with a frozen dataclass of its settings whose `build` returns a `Curriculum`, its test, and a line
in `CURRICULA`.  One of your own outside the package needs no line: `--curriculum package.module:ClassName`.
"""

from lilo_jax.curriculum.lilo import Lilo
from lilo_jax.curriculum.sfl_buffer import SflBuffer
from lilo_jax.curriculum.uniform import Uniform

CURRICULA = {
    "uniform": Uniform,
    "lilo": Lilo,
    "sfl_buffer": SflBuffer,
}
