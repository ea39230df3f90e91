"""Tasks: questions in, verdicts out.

To add one: a file with a frozen dataclass of its settings whose `build(seed)` returns a `Task`, its test, and a line
in `TASKS`.  One of your own outside the package needs no line: `--task package.module:ClassName`.
"""

from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.jsonl import Jsonl

TASKS = {
    "chain": Chain,
    "jsonl": Jsonl,
}
