"""Run directories for tests."""

from lilo_jax.training.opening import open_run


def opened(path, config, resume="auto", questions=None):
    """A run's directory as it is when training begins; its lock is given up at once."""
    with open_run(path, config, resume, questions or {}) as directory:
        return directory
