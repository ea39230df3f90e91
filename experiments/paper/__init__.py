"""Foster et al. 2025 (LILO, arXiv 2502.12272), item by item: `python -m experiments.paper.NAME --preset tiny`.

experiments/README.md is the table of all 34, and says what they measured; experiments/study.py says how one is written.
"""
