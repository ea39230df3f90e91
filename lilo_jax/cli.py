"""`lilo <verb>`: looks at machines and runs.  Each verb is thin; what it shows is computed elsewhere."""

import argparse
import importlib.metadata
import pathlib
import platform
from typing import NoReturn

import jax

from lilo_jax.config import exit_with_message
from lilo_jax.errors import UsageError
from lilo_jax.storage.digest import digest_lines
from lilo_jax.storage.run_directory import PACKAGES


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main() -> None:
    """The console script."""
    exit_with_message(_main)


def _main() -> None:
    parser = _Parser(prog="lilo", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)

    def verb(name: str, does: str, example: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=does, description=does, epilog=f"example: {example}")
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    verb("doctor", "Versions, devices and memory of this machine.", "lilo doctor")
    digest = verb(
        "digest",
        "SHA-256 of every part of a run's final state, sub-runs included; equal runs print equal text.",
        "lilo digest runs/latest",
    )
    digest.add_argument("run", type=pathlib.Path, help="run directory")
    report = verb("report", "An HTML report of one or more runs.", "lilo report runs/a runs/b --output report.html")
    report.add_argument("runs", type=pathlib.Path, nargs="+", help="run directories")
    report.add_argument("--output", type=pathlib.Path, required=True, help="HTML file to write")
    arguments = parser.parse_args()
    if arguments.verb == "doctor":
        print("\n".join(_doctor_lines()))
    elif arguments.verb == "digest":
        print("\n".join(digest_lines(arguments.run)))
    else:
        from lilo_jax.report.html import report_runs

        print(report_runs(arguments.runs, arguments.output))


def _doctor_lines() -> list[str]:
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    for device in jax.devices():
        memory = device.memory_stats() or {}
        limit = memory.get("bytes_limit")
        size = f"{limit / 2**30:.1f} GiB" if limit else "memory not reported"
        lines.append(f"device {device.id}: {device.device_kind} ({device.platform}), {size}")
    return lines
