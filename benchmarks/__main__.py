"""`python -m benchmarks`: lilo_jax beside its peers on one CPU core."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.arena import Arm, here
from benchmarks.session import Session
from benchmarks.suite import EXPERIMENTS, PEERS, ROOFLINE, Experiment, Setting
from benchmarks.table import Limits
from benchmarks.workload import SHAPES, TINY, Job, Sizes
from lilo_jax.processes.endings import exit_with_message


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """An argparse type: comma-separated names out of `known`; "none" is the empty list."""

    def parse(text: str) -> list[str]:
        found = [name for name in text.split(",") if name and name != "none"]
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}: known are {', '.join(known)}")
        return found

    return parse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = Sizes()
    p = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    p.add_argument(
        "--only", type=names(EXPERIMENTS), default=list(EXPERIMENTS), help="a,b of " + ", ".join(EXPERIMENTS)
    )
    p.add_argument("--peers", type=names(PEERS), default=list(PEERS), help="a,b of hf, trl, tunix; or none")
    p.add_argument("--rounds", type=int, default=3, help="measured calls of each contender, in alternation")
    p.add_argument("--core", type=int, help="pin all processes to this core")
    p.add_argument("--shape", choices=list(SHAPES), default="small", help="tiny: seconds, to see that it runs")
    p.add_argument("--torch-python", default=here(), help="interpreter with torch, transformers, trl")
    p.add_argument("--tunix-python", default=here(), help="interpreter with google-tunix")
    p.add_argument("--sequences", type=int, help=f"of scoring, update, GRPO step (default {defaults.sequences})")
    p.add_argument("--microbatch", type=int, help=f"of them at a time (default {defaults.microbatch})")
    p.add_argument("--group", type=int, help=f"samples of a prompt (default {defaults.group})")
    p.add_argument("--prompt-tokens", type=int, help=f"(default {defaults.prompt_tokens})")
    p.add_argument("--new-tokens", type=int, help=f"of a response (default {defaults.new_tokens})")
    p.add_argument("--slots", type=int, help=f"of requests of unequal length (default {defaults.slots})")
    p.add_argument("--requests-per-slot", type=int, help=f"(default {defaults.requests_per_slot})")
    p.add_argument("--trajectories", type=int, help=f"of the Monte-Carlo phase (default {defaults.trajectories})")
    p.add_argument("--output-dir", type=Path, default=Path("benchmarks/results"))
    return p


def measure_limits(session: Session, setting: Setting) -> Limits:
    """The best matmul rate of any library at hand, and the bandwidth of memory; printed."""
    libraries = {"numpy": "ours", "jax": "ours", "torch": "hf"}
    arms = [
        Arm(
            library,
            ROOFLINE,
            setting.pythons[of],
            Job("roofline", library, setting.shape, setting.sizes),
            1,
        )
        for library, of in libraries.items()
        if of in setting.pythons
    ]
    found = [o for o in session.compete(Experiment("roofline", "", arms)) if not o.problem]
    rates = {o.arm.name: max(answer["gflops"] for answer in o.rounds) for o in found}
    read, copy = (max(answer[name] for answer in found[0].rounds) for name in ("read_gb_s", "copy_gb_s"))
    lines = [f"float32 matrix product, {name}: {rate:.0f} GFLOP/s" for name, rate in rates.items()]
    lines.append(f"memory: {read:.1f} GB/s read, {copy:.1f} GB/s copied (read and written)")
    session.show("The machine, one core" if session.core is not None else "The machine", "\n".join(lines))
    return Limits(flops=1e9 * max(rates.values()), traffic=1e9 * max(read, copy))


def main(arguments: list[str]) -> int:
    """Runs the chosen experiments; returns the exit status."""
    options = parser().parse_args(arguments)
    if options.rounds < 1:
        parser().error("--rounds must be at least 1")
    if options.core is not None and not hasattr(os, "sched_setaffinity"):
        parser().error("--core needs Linux; leave it out to run unpinned")
    sizes = TINY if options.shape == "tiny" else Sizes()
    given = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(sizes)}
    sizes = dataclasses.replace(sizes, **{name: value for name, value in given.items() if value is not None})
    if min(dataclasses.astuple(sizes)) < 1:
        parser().error("sizes must be at least 1")
    if sizes.sequences % sizes.microbatch or sizes.sequences % sizes.group:
        parser().error("--sequences must be a multiple of --microbatch and of --group")
    pythons = {"hf": options.torch_python, "trl": options.torch_python, "tunix": options.tunix_python}
    setting = Setting(SHAPES[options.shape], sizes, {"ours": here(), **{name: pythons[name] for name in options.peers}})
    session = Session(options.rounds, options.core, options.output_dir.resolve())
    session.limits = measure_limits(session, setting)
    for name, experiments in EXPERIMENTS.items():
        if name in options.only:
            session.run(experiments(setting))
    return session.finish(["python", "-m", "benchmarks", *arguments])


if __name__ == "__main__":
    exit_with_message(lambda: sys.exit(main(sys.argv[1:])))
