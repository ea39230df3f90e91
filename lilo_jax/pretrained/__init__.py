"""Models without a run: where they come from, completions, log-probs, suites, export."""
