"""Run directories for tests."""

from lilo_jax.storage.checkpoints import newest, read_record, stream_arrays
from lilo_jax.training.opening import open_run


def opened(path, config, resume="auto", questions=None):
    """A run's directory as it is when training begins; its lock is given up at once."""
    with open_run(path, config, resume, questions or {}) as directory:
        return directory


def load_arrays(path, prefix=""):
    """The newest step of a directory of checkpoints, its arrays by name, those that begin with `prefix`, its record."""
    step = newest(path)
    return step, dict(stream_arrays(path, step, prefix)), read_record(path, step)
