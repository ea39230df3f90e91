"""What a person sees while a run goes on: a bar with phase times in a terminal, plain lines elsewhere."""

import sys

import tqdm


class Progress:
    """A progress bar over steps, or one line a step where there is no terminal."""

    def __init__(self, name: str, *, total: int, every: int = 1, bar: bool = True) -> None:
        self._name, self._total, self._every = name, total, every
        self._bar = None
        if bar and sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, desc=name, unit="step", file=sys.stderr)

    def step(self, step: int, seconds: dict[str, float], note: str) -> None:
        """Reports that `step` steps are done; `seconds` are the phases of the last one."""
        phases = " ".join(f"{name} {1000 * value:.0f}ms" for name, value in seconds.items() if value >= 5e-4)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{note} | {phases}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif step % self._every == 0 or step == self._total:
            self.line(f"step {step}/{self._total}: {note} | {phases}")

    def evaluation(self, step: int, accuracies: dict[str, float]) -> None:
        """Reports accuracies after `step` steps."""
        if self._bar is not None or step % self._every == 0 or step == self._total:
            self.line(f"after {step} steps: accuracy " + ", ".join(f"{k} {v:.4f}" for k, v in accuracies.items()))

    def line(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(f"{self._name}: {text}", file=sys.stderr)
        else:
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
