"""Tasks: questions in, verdicts out.

To add one: a file with a frozen dataclass of its settings whose `build(seed)` returns a `Task`, its test, and a line
in `TASKS`.  One of your own outside the package needs no line: `--task package.module:ClassName`.
"""

from lilo_jax.tasks.aime import Aime24, Aime25
from lilo_jax.tasks.amc23 import Amc23
from lilo_jax.tasks.asdiv import Asdiv
from lilo_jax.tasks.asdiv_svamp import AsdivSvamp
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.collegemath import CollegeMath
from lilo_jax.tasks.columns import Columns
from lilo_jax.tasks.countdown import Countdown
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tasks.gsm8k import Gsm8k
from lilo_jax.tasks.hendrycks_math import Math
from lilo_jax.tasks.math500 import Math500
from lilo_jax.tasks.minerva import Minerva
from lilo_jax.tasks.olympiadbench import OlympiadBench
from lilo_jax.tasks.orz57k import Orz57k
from lilo_jax.tasks.pairs import Pairs
from lilo_jax.tasks.reasoning_gym import ReasoningGym
from lilo_jax.tasks.stories import Stories
from lilo_jax.tasks.sums import Sums
from lilo_jax.tasks.svamp import Svamp

TASKS = {
    "aime24": Aime24,
    "aime25": Aime25,
    "amc23": Amc23,
    "asdiv": Asdiv,
    "asdiv_svamp": AsdivSvamp,
    "chain": Chain,
    "collegemath": CollegeMath,
    "columns": Columns,
    "countdown": Countdown,
    "dataset": Dataset,
    "gsm8k": Gsm8k,
    "math": Math,
    "math500": Math500,
    "minerva": Minerva,
    "olympiadbench": OlympiadBench,
    "orz57k": Orz57k,
    "pairs": Pairs,
    "reasoning_gym": ReasoningGym,
    "stories": Stories,
    "sums": Sums,
    "svamp": Svamp,
}
