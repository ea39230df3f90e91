"""Evaluation: how often held-out questions are answered correctly, the same during training and alone.

protocols.py    how many responses are sampled and how, under the names that papers are cited by
generations.py  responses with their verdicts, kept, graded again, summarised
measures.py     pass@1, pass@k, maj@k and their intervals
calibration.py   how good a belief about success rates is
audit.py         the belief of a run's curriculum, during training
held_out.py     the held-out sets of a run, during training
suites.py       published sets, with a model of any kind
"""
