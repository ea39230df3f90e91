"""A run: what it consists of, the loop, its records."""
