"""What was paid for, in tokens, by purpose: the account against which every curve can be drawn."""

import collections
import dataclasses

PURPOSES = ("sft", "train", "rejected", "follow_up", "evaluation", "screen", "audit", "features")
KINDS = ("prefilled", "generated", "scored", "trained", "saved")


@dataclasses.dataclass
class Ledger:
    """Cumulative token counts.

    Kinds: `prefilled`, prompt tokens run once per distinct prompt; `generated`, sampled tokens, end tokens included;
    `scored`, tokens run forward without a gradient; `trained`, tokens run forward and backward; `saved`, tokens that
    were not sampled because fewer rollouts of a state were enough, at the mean length of the state's others.
    Purposes: `sft`; `train`, rollouts that were trained on; `rejected`, rollouts made only to choose; `follow_up`, an
    algorithm's own extra rollouts; `evaluation`.
    """

    counts: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)

    def add(self, purpose: str, kind: str, tokens: float) -> None:
        """Books tokens, in whole ones; purpose and kind must be known."""
        if purpose not in PURPOSES or kind not in KINDS:
            raise ValueError(f"no ledger entry {purpose}/{kind}")
        self.counts[purpose, kind] += int(tokens)

    def generated(self) -> int:
        """Tokens generated for training: everything but evaluation."""
        return sum(n for (purpose, kind), n in self.counts.items() if kind == "generated" and purpose != "evaluation")

    def to_dict(self) -> dict[str, int]:
        """`{"train/generated": 123, ...}` with every purpose and kind, in a fixed order."""
        return {f"{purpose}/{kind}": self.counts[purpose, kind] for purpose in PURPOSES for kind in KINDS}

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> "Ledger":
        """The inverse of `to_dict`."""
        return cls(
            collections.Counter({(name.split("/")[0], name.split("/")[1]): int(n) for name, n in values.items()})
        )
