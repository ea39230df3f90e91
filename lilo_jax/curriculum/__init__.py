"""Curricula: which questions to roll out, and which groups to train on.

A rule is written with `compose(...)` from the parts that this package exports, so that a rule of your own is one import
line.  Each rule of ours has a file in `rules/`, each of other papers one in `literature/`.  To add one: a file with a
frozen dataclass of its settings whose `build` returns a `Curriculum`, its test, and a line in `CURRICULA`.  One of your
own outside the package needs no line: `--curriculum package.module:ClassName`.
"""

from lilo_jax.curriculum.allocators import constant, knapsack, neyman
from lilo_jax.curriculum.buffers import not_waiting, review_queue, waiting
from lilo_jax.curriculum.composition import Worth, alike, choice, compose, of_belief
from lilo_jax.curriculum.contract import Curriculum, CurriculumSpec, Wants
from lilo_jax.curriculum.dynamics import blended, rasch, three_states
from lilo_jax.curriculum.estimators import (
    Estimate,
    Estimator,
    Tracker,
    beta,
    decayed_counts,
    earliest,
    frequency,
    latest,
    lifetime,
    measured,
    moving_average,
    recalled,
    thompson,
)
from lilo_jax.curriculum.gates import (
    Gate,
    Merit,
    advantages_in,
    either,
    everything,
    largest_variance,
    least_variance,
    most_variance,
    of_last_round,
    of_round,
    of_size,
    only_mixed,
    preferring,
    within,
)
from lilo_jax.curriculum.histories import foretold, offsets, unremembered
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
from lilo_jax.curriculum.literature.hive import Hive
from lilo_jax.curriculum.literature.kimi import Kimi
from lilo_jax.curriculum.literature.knapsack import Knapsack
from lilo_jax.curriculum.literature.lze import Lze
from lilo_jax.curriculum.literature.mapp import Mapp
from lilo_jax.curriculum.literature.mopps import Mopps
from lilo_jax.curriculum.literature.pcl import Pcl
from lilo_jax.curriculum.literature.pilot_commit import PilotCommit
from lilo_jax.curriculum.literature.plr import Plr
from lilo_jax.curriculum.literature.prime import Prime
from lilo_jax.curriculum.literature.prime_rl_pools import PrimeRlPools
from lilo_jax.curriculum.literature.reinforce_ada import ReinforceAda
from lilo_jax.curriculum.literature.remind import Remind
from lilo_jax.curriculum.literature.retire_solved import RetireSolved
from lilo_jax.curriculum.literature.rlve import Rlve
from lilo_jax.curriculum.literature.sec import Sec
from lilo_jax.curriculum.literature.speed import Speed
from lilo_jax.curriculum.literature.spo import Spo
from lilo_jax.curriculum.literature.vcrl import Vcrl
from lilo_jax.curriculum.prices import balanced, per_length, per_visit, retired
from lilo_jax.curriculum.regression import logistic_regression
from lilo_jax.curriculum.rounds import (
    Choose,
    Rounds,
    allocated,
    expecting,
    once,
    pilot_then_commit,
    refill,
    screen_then_continue,
    screened,
    successive,
    top_up,
)
from lilo_jax.curriculum.rules.frontier import Frontier
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.curriculum.rules.lilo_sequential import LiloSequential
from lilo_jax.curriculum.rules.sfl_buffer import SflBuffer
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.curriculum.selectors import (
    Classes,
    Selector,
    diverse,
    gumbel_top_k,
    mixture,
    per_class,
    rank_power,
    rank_weights,
    softmax,
    top_k,
    whole_part,
)
from lilo_jax.curriculum.sources import Source, at_levels, least_visited, not_skipped, random_pool, whole_pool
from lilo_jax.curriculum.statistics import expected_lengths, is_mixed, learnability
from lilo_jax.curriculum.traps import trap_detector, trap_probability
from lilo_jax.curriculum.values import (
    band,
    corrected_variance,
    deviation,
    expected_variance,
    failure,
    hard_variance,
    marginal_variance,
    mixed,
    nearness,
    pools,
    progress,
    variance,
)
from lilo_jax.types import Admission, Array, CurriculumState, Facts, GroupSignals, GroupStatistics, Proposal, PyTree

__all__ = [
    "CURRICULA",
    "Adarft",
    "Admission",
    "Array",
    "Balanced",
    "Bots",
    "Cdas",
    "Choose",
    "Classes",
    "Curriculum",
    "CurriculumSpec",
    "CurriculumState",
    "Dapo",
    "Dots",
    "Dps",
    "Dump",
    "E2h",
    "Estimate",
    "Estimator",
    "Facts",
    "Frontier",
    "Gate",
    "Greso",
    "GroupSignals",
    "GroupStatistics",
    "Hive",
    "Kimi",
    "Knapsack",
    "Lilo",
    "LiloSequential",
    "Lze",
    "Mapp",
    "Merit",
    "Mopps",
    "Pcl",
    "PilotCommit",
    "Plr",
    "Prime",
    "PrimeRlPools",
    "Proposal",
    "PyTree",
    "ReinforceAda",
    "Remind",
    "RetireSolved",
    "Rlve",
    "Rounds",
    "Sec",
    "Selector",
    "SflBuffer",
    "Source",
    "Speed",
    "Spo",
    "Tracker",
    "Uniform",
    "Vcrl",
    "Wants",
    "Worth",
    "advantages_in",
    "alike",
    "allocated",
    "at_levels",
    "balanced",
    "band",
    "beta",
    "blended",
    "choice",
    "compose",
    "constant",
    "corrected_variance",
    "decayed_counts",
    "deviation",
    "diverse",
    "earliest",
    "either",
    "everything",
    "expected_lengths",
    "expected_variance",
    "expecting",
    "failure",
    "foretold",
    "frequency",
    "gumbel_top_k",
    "hard_variance",
    "is_mixed",
    "knapsack",
    "largest_variance",
    "latest",
    "learnability",
    "least_variance",
    "least_visited",
    "lifetime",
    "logistic_regression",
    "marginal_variance",
    "measured",
    "mixed",
    "mixture",
    "most_variance",
    "moving_average",
    "nearness",
    "neyman",
    "not_skipped",
    "not_waiting",
    "of_belief",
    "of_last_round",
    "of_round",
    "of_size",
    "offsets",
    "once",
    "only_mixed",
    "per_class",
    "per_length",
    "per_visit",
    "pilot_then_commit",
    "pools",
    "preferring",
    "progress",
    "random_pool",
    "rank_power",
    "rank_weights",
    "rasch",
    "recalled",
    "refill",
    "retired",
    "review_queue",
    "screen_then_continue",
    "screened",
    "softmax",
    "successive",
    "thompson",
    "three_states",
    "top_k",
    "top_up",
    "trap_detector",
    "trap_probability",
    "unremembered",
    "variance",
    "waiting",
    "whole_part",
    "whole_pool",
    "within",
]

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
    "pilot_commit": PilotCommit,
    "vcrl": Vcrl,
    "lze": Lze,
    "kimi": Kimi,
    "greso": Greso,
    "hive": Hive,
    "mopps": Mopps,
    "mapp": Mapp,
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
    "remind": Remind,
    "rlve": Rlve,
    "frontier": Frontier,
}
