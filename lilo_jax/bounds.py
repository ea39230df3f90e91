"""What the numbers of settings may be, declared on the fields themselves: `learning_rate: Positive = 1e-3`.

`lilo_jax.checking` holds settings to it.  What no field needs to say: a number is finite, and a whole one below 2^31.
"""

import math
from typing import Annotated

from annotated_types import Ge, Gt, Interval

Whole = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]
Generated = Annotated[int, Interval(ge=1, le=1_000_000)]
"""How many questions a generator makes: it keeps them all in memory, and must find as many different ones."""

Number = Annotated[float, Interval(gt=-math.inf, lt=math.inf)]
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
