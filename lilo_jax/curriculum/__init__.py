"""Curricula: which questions to roll out, and which groups to train on.

A rule is a composition of parts (`composition.py`); each has a file in `rules/`.  To add one: a file with a frozen
dataclass of its settings whose `build` returns a `Curriculum`, its test, and a line in `CURRICULA`.  One of your own
outside the package needs no line: `--curriculum package.module:ClassName`.
"""

from lilo_jax.curriculum.literature.adarft import Adarft
from lilo_jax.curriculum.literature.balanced import Balanced
from lilo_jax.curriculum.literature.bots import Bots
from lilo_jax.curriculum.literature.cdas import Cdas
from lilo_jax.curriculum.literature.dapo import Dapo
from lilo_jax.curriculum.literature.dots import Dots
from lilo_jax.curriculum.literature.dps import Dps
from lilo_jax.curriculum.literature.dump import Dump
from lilo_jax.curriculum.literature.e2h import E2h
from lilo_jax.curriculum.literature.greso import Greso
from lilo_jax.curriculum.literature.kimi import Kimi
from lilo_jax.curriculum.literature.knapsack import Knapsack
from lilo_jax.curriculum.literature.mopps import Mopps
from lilo_jax.curriculum.literature.pcl import Pcl
from lilo_jax.curriculum.literature.plr import Plr
from lilo_jax.curriculum.literature.prime import Prime
from lilo_jax.curriculum.literature.prime_rl_pools import PrimeRlPools
from lilo_jax.curriculum.literature.reinforce_ada import ReinforceAda
from lilo_jax.curriculum.literature.retire_solved import RetireSolved
from lilo_jax.curriculum.literature.rlve import Rlve
from lilo_jax.curriculum.literature.sec import Sec
from lilo_jax.curriculum.literature.speed import Speed
from lilo_jax.curriculum.literature.spo import Spo
from lilo_jax.curriculum.literature.vcrl import Vcrl
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.lilo_sequential import LiloSequential
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.curriculum.rules.uniform import Uniform

CURRICULA = {
    "uniform": Uniform,
    "lilo": Lilo,
    "lilo_sequential": LiloSequential,
    "sfl_buffer": SflBuffer,
    "plr": Plr,
    "dapo": Dapo,
    "prime": Prime,
    "balanced": Balanced,
    "speed": Speed,
    "vcrl": Vcrl,
    "kimi": Kimi,
    "greso": Greso,
    "mopps": Mopps,
    "bots": Bots,
    "spo": Spo,
    "cdas": Cdas,
    "adarft": Adarft,
    "dps": Dps,
    "sec": Sec,
    "dump": Dump,
    "e2h": E2h,
    "dots": Dots,
    "pcl": Pcl,
    "knapsack": Knapsack,
    "reinforce_ada": ReinforceAda,
    "prime_rl_pools": PrimeRlPools,
    "retire_solved": RetireSolved,
    "rlve": Rlve,
    "frontier": Frontier,
}
