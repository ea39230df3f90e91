"""`python -m lilo_jax.cli` is `lilo`."""

from lilo_jax.cli import main
from lilo_jax.processes.endings import exit_with_message

exit_with_message(main)
