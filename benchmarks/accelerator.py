"""`python -m benchmarks.accelerator`: Qwen2.5-sized models in bfloat16 on one accelerator, ours beside transformers.

Wall seconds count here.  "of matmul rate" of the update is its MFU: FLOPs counted from the shapes over the chip's peak.
"of bandwidth" of the rollout is the share of the chip's memory bandwidth that reading weights and caches once takes.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from benchmarks.__main__ import names
from benchmarks.arena import Arm, here
from benchmarks.session import Session
from benchmarks.suite import EXPERIMENTS, OURS, Experiment, Setting
from benchmarks.table import Limits
from benchmarks.workload import SHAPES, TINY, Job, Sizes
from lilo_jax.processes.endings import exit_with_message

WORKS = ("parity", "rollout", "scoring", "update")
SIZES = Sizes(rows=256, prompt_tokens=256, new_tokens=256, sequences=64, microbatch=8)
PEAKS = {
    "H200": (989, 4800),
    "H100": (989, 3350),
    "A100": (312, 2039),
    "L4": (121, 300),
    "T4": (65, 320),
    "TPU v4": (275, 1228),
    "TPU v5 lite": (197, 819),
    "TPU v5e": (197, 819),
    "TPU v5p": (459, 2765),
    "TPU v6 lite": (918, 1640),
}
"""Part of the device's name to its maker's dense bfloat16 TFLOP/s (T4: float16) and GB/s; the larger variant's."""


def limits(device: str, peak_tflops: float | None, peak_bandwidth: float | None) -> Limits:
    """Peaks of the device by its name, unless given; 0 where unknown."""
    known = next((peaks for name, peaks in PEAKS.items() if name.lower() in device.lower()), (0, 0))
    tflops = known[0] if peak_tflops is None else peak_tflops
    bandwidth = known[1] if peak_bandwidth is None else peak_bandwidth
    return Limits(flops=1e12 * tflops, traffic=1e9 * bandwidth)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    shapes = [name for name in SHAPES if name != "small"]
    p.add_argument("--shape", choices=shapes, default="qwen2.5-0.5b", help="tiny: to see that it runs, on a CPU too")
    p.add_argument("--only", type=names(WORKS), default=list(WORKS), help="a,b of " + ", ".join(WORKS))
    p.add_argument("--peers", type=names(["hf"]), default=["hf"], help="hf or none")
    p.add_argument("--rounds", type=int, default=3, help="measured calls of each contender, in alternation")
    p.add_argument("--rows", type=int, help=f"decoded together (default {SIZES.rows})")
    p.add_argument("--sequences", type=int, help=f"of scoring and update (default {SIZES.sequences})")
    p.add_argument("--microbatch", type=int, help=f"of them at a time (default {SIZES.microbatch})")
    p.add_argument("--peak-tflops", type=float, help="of the chip in bfloat16; default by its name")
    p.add_argument("--peak-bandwidth", type=float, help="of its memory, GB/s; default by its name")
    p.add_argument("--torch-python", default=here(), help="interpreter with torch and transformers")
    p.add_argument("--output-dir", type=Path, default=Path("benchmarks/results/accelerator"))
    return p


def main(arguments: list[str]) -> int:
    """Runs the chosen experiments; returns the exit status."""
    options = parser().parse_args(arguments)
    chosen = {
        name: value for name in ("rows", "sequences", "microbatch") if (value := getattr(options, name)) is not None
    }
    sizes = dataclasses.replace(TINY if options.shape == "tiny" else SIZES, **chosen)
    pythons = {"ours": here()} | dict.fromkeys(options.peers, options.torch_python)
    setting = Setting(SHAPES[options.shape], sizes, pythons, device="accelerator", dtype="bfloat16")
    session = Session(options.rounds, None, options.output_dir.resolve())
    probe = Arm("ours", OURS, here(), Job("device", "", setting.shape, sizes, "accelerator"), tokens=1)
    device = session.compete(Experiment("device", "", [probe]))[0].first.get("device", "unknown")
    session.limits = limits(device, options.peak_tflops, options.peak_bandwidth)
    peaks = session.limits
    session.show("Device", f"{device}: {peaks.flops / 1e12:.0f} TFLOP/s, {peaks.traffic / 1e9:.0f} GB/s (0: unknown)")
    for name in WORKS:
        if name in options.only:
            session.run(EXPERIMENTS[name](setting))
    return session.finish(["python", "-m", "benchmarks.accelerator", *arguments])


if __name__ == "__main__":
    exit_with_message(lambda: sys.exit(main(sys.argv[1:])))
