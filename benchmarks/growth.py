"""How the cost of a step grows: one table of axes, measured on a CPU and planned for TPU slices.

    python -m benchmarks.growth --core 0                        # every axis; writes growth.json and growth.svg
    python -m benchmarks.growth --core 0 --axes questions,width --rounds 5
    python -m benchmarks.growth --axes chips,length,model       # planned: needs libtpu (extra `aot`), no TPU
    python -m benchmarks.growth --axes "" --output-dir DIR      # draws growth.json once more, and prints its table

A measured point is CPU seconds of a phase, the least of some rounds, of the work of `benchmarks.ours`: a rollout of
groups that share a prompt, scoring, an update.  All points of a run are measured in one process.  A planned point is
what `lilo plan` says of a step.  The exponent of a curve is the slope of a straight line through its points in
logarithms: 1 is cost in proportion, 2 is four times the cost for twice the size.

Axes that were measured before stay in growth.json; those that are asked for take their place.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.workload import SHAPES, Job, Shape, Sizes
from lilo_jax.errors import unknown_name
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.report.drawing import Drawing, new_figure, short_numbers, styled, svg_of
from lilo_jax.report.figures import standalone
from lilo_jax.report.tables import markdown
from lilo_jax.storage.json_lines import to_json

GIB = 2**30
SHAPE = Shape(4, 128, 4, 2, 32, 352, 2048)
SIZES = Sizes(rows=32, prompt_tokens=32, new_tokens=32, group=8, sequences=32, microbatch=32)
"""Four questions of eight samples, all of them trained on."""
PHASES = {"rollout": "groups", "scoring": "", "update": ""}
"""Work of `benchmarks.ours` to its variant."""
QWEN = {
    "0.5B": SHAPES["qwen2.5-0.5b"],
    "1.5B": SHAPES["qwen2.5-1.5b"],
    "7B": Shape(28, 3584, 28, 4, 128, 18_944, 152_064),
}
"""The 7B as well with tied embeddings, which the published one has not."""
SLICES = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}
QUESTIONS, SAMPLES, PROMPT, ROWS_PER_CHIP = 64, 8, 512, 4
"""Of planned steps; so many rows of a micro-batch go to a chip."""
POOL = 12_000


class Point(NamedTuple):
    """Curves to their value where an axis is at `size`."""

    size: float
    values: dict[str, float]


class Axis(NamedTuple):
    """One thing that grows.

    Attributes:
        title: of its panel.
        unit: of what its curves count.
        points: (rounds) -> its points, one after the other.
    """

    title: str
    unit: str
    points: Callable[[int], Iterator[Point]]


# ------------------------------------------------------------------------------------------------- measured on this CPU
class _Timed:
    """A gate that measures: least CPU seconds of a call after the first."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.seconds = rounds, 0.0

    def repeat(self, run: Callable[[], Any]) -> None:
        run()
        self.seconds = min(_cpu_seconds(run) for _ in range(self.rounds))


def _cpu_seconds(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


_MEASURED: dict[tuple[Job, int], float] = {}


def measured(work: str, shape: Shape, sizes: Sizes, rounds: int) -> float:
    """CPU seconds of a phase; the same work is measured once a run."""
    from benchmarks import ours  # not for those who only plan or draw

    job = Job(work, PHASES[work], shape, sizes)
    if (job, rounds) not in _MEASURED:
        timed: Any = _Timed(rounds)
        ours.WORKS[work](job, timed)
        _MEASURED[job, rounds] = timed.seconds
    return _MEASURED[job, rounds]


def step(shape: Shape, sizes: Sizes, rounds: int) -> dict[str, float]:
    """Seconds by phase."""
    return {work: measured(work, shape, sizes, rounds) for work in PHASES}


def _of_sizes(values: Sequence[int], sizes: Callable[[int], Sizes]) -> Callable[[int], Iterator[Point]]:
    def points(rounds: int) -> Iterator[Point]:
        for value in values:
            yield Point(value, step(SHAPE, sizes(value), rounds))

    return points


def _of_shapes(values: Sequence[int], shape: Callable[[int], Shape]) -> Callable[[int], Iterator[Point]]:
    def points(rounds: int) -> Iterator[Point]:
        for value in values:
            yield Point(value, step(shape(value), SIZES, rounds))

    return points


def _rows(questions: int, samples: int) -> Sizes:
    rows = questions * samples
    return dataclasses.replace(SIZES, rows=rows, sequences=rows, microbatch=rows, group=samples)


def _wide(width: int) -> Shape:
    heads = width // SHAPE.head_dim
    return dataclasses.replace(
        SHAPE, embed_dim=width, num_heads=heads, num_kv_heads=max(heads // 2, 1), mlp_dim=11 * width // 4
    )


def _candidates_of_lilo(rounds: int) -> Iterator[Point]:
    """LILO rolls out so many times the questions that it trains on."""
    for ratio in (1, 2, 4):
        yield Point(ratio, step(SHAPE, dataclasses.replace(SIZES, rows=ratio * SIZES.rows), rounds))


def _candidates_of_frontier(rounds: int) -> Iterator[Point]:
    """Frontier predicts so many candidates for each question, and rolls out none of them before it has chosen."""
    from benchmarks.selection import selection_cost
    from lilo_jax.curriculum.rules.frontier import Frontier

    for ratio in (4, 16, 64, 256):
        cost = selection_cost(
            Frontier(pool_ratio=ratio), pool_size=POOL, questions=16, samples=8, rounds=rounds, clock=time.process_time
        )
        yield Point(16 * ratio, {"choosing": cost.propose / 1e3})


# --------------------------------------------------------------------------------------------- planned for TPU slices
def plan(chips: int, shape: Shape, new_tokens: int) -> dict[str, float]:
    """Roofline seconds of the phases of a GRPO step, GiB of a chip at the peak of programs, GiB that each sends."""
    from experiments.train import config
    from lilo_jax import config as configuration
    from lilo_jax.curriculum.rules.uniform import Uniform
    from lilo_jax.device.mesh import MeshConfig
    from lilo_jax.planning.plan import Request, make_plan, say
    from lilo_jax.rl.grpo import Grpo

    jax.config.update("jax_exec_time_optimization_effort", -1.0)  # as `lilo plan` does
    rows = QUESTIONS * SAMPLES
    model = {f.name: getattr(shape, f.name) for f in dataclasses.fields(shape) if f.name.startswith(_OF_MODEL)}
    planned = configuration.replace(
        config(),
        algorithm=Grpo(),
        curriculum=Uniform(),
        mesh=MeshConfig(data=1, fsdp=chips),
        rollout__questions=QUESTIONS,
        rollout__samples=SAMPLES,
        rollout__max_new_tokens=new_tokens,
        update__minibatches=1,
        update__microbatches=max(rows // (chips * max(ROWS_PER_CHIP * 1024 // new_tokens, 1)), 1),
        model__tie_embeddings=True,
        model__compute_dtype="bfloat16",
        model__remat="layers",
        **{f"model__{name}": value for name, value in model.items()},
    )
    found = make_plan(planned, Request(SLICES[chips], ("sample", "update"), prompt=PROMPT, pool=POOL), tell=say)
    seconds = {f"seconds: {name}": phase.total for name, phase in found.seconds.items()}
    peaks = {f"GiB: {name}": found.peak(name) / GIB for name in found.programs}
    sent = {f"GiB sent: {name}": part.traffic[0].total / GIB for name, part in found.programs.items() if part.traffic}
    return seconds | peaks | sent


_OF_MODEL = ("num_", "embed_", "head_", "mlp_", "vocab_")


def _chips(rounds: int) -> Iterator[Point]:
    del rounds
    for chips in SLICES:
        yield Point(chips, plan(chips, QWEN["1.5B"], 1024))


def _planned_length(rounds: int) -> Iterator[Point]:
    del rounds
    for new_tokens in (1024, 8192, 32_256):
        yield Point(new_tokens, plan(16, QWEN["1.5B"], new_tokens))


def _planned_model(rounds: int) -> Iterator[Point]:
    del rounds
    for shape in QWEN.values():
        yield Point(weights(shape), plan(16, shape, 1024))


def weights(shape: Shape) -> int:
    """Weights of a decoder with tied embeddings, norms left out."""
    attention = 2 * shape.embed_dim * shape.head_dim * (shape.num_heads + shape.num_kv_heads)
    return shape.num_layers * (attention + 3 * shape.embed_dim * shape.mlp_dim) + shape.vocab_size * shape.embed_dim


CPU, PLANNED = "CPU seconds", "of each chip"
AXES = {
    "questions": Axis("questions of 8 samples", CPU, _of_sizes((4, 8, 16), lambda n: _rows(n, 8))),
    "samples": Axis("samples of each of 4 questions", CPU, _of_sizes((4, 8, 16), lambda n: _rows(4, n))),
    "lilo": Axis("LILO's candidates for each question", CPU, _candidates_of_lilo),
    "frontier": Axis("frontier's candidates for 16 questions", CPU, _candidates_of_frontier),
    "completion": Axis(
        "tokens of a completion", CPU, _of_sizes((32, 64, 128), lambda n: dataclasses.replace(SIZES, new_tokens=n))
    ),
    "width": Axis("width of the model", CPU, _of_shapes((128, 256, 512), _wide)),
    "depth": Axis(
        "layers of the model", CPU, _of_shapes((2, 4, 8), lambda n: dataclasses.replace(SHAPE, num_layers=n))
    ),
    "chips": Axis("v5e chips, Qwen2.5-1.5B", PLANNED, _chips),
    "length": Axis("tokens of a completion, 16 chips", PLANNED, _planned_length),
    "model": Axis("weights of the model, 16 chips", PLANNED, _planned_model),
}
"""Name on the command line to what grows."""


# ------------------------------------------------------------------------------------------------------------- figures
def exponent(points: Sequence[Point], curve: str) -> float:
    """Slope of log(value) over log(size), by least squares."""
    sizes, values = zip(*((p.size, p.values[curve]) for p in points if p.values.get(curve)), strict=True)
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def curves(points: Sequence[Point]) -> list[str]:
    """Names of the curves that have a line: those of at least two values above 0, at the same sizes or not."""
    names = dict.fromkeys(name for point in points for name in point.values)
    return [name for name in names if sum(bool(point.values.get(name)) for point in points) > 1]


def table(found: Mapping[str, Sequence[Point]]) -> str:
    """A row for each curve: its values by size, as multiples of the first, and its exponent."""
    rows = []
    for name, points in found.items():
        for curve in curves(points):
            kept = [point for point in points if point.values.get(curve)]
            first = kept[0].values[curve]
            ratios = ", ".join(f"{p.values[curve] / first:.2f}" for p in kept)
            sizes = ", ".join(f"{p.size:,.0f}" for p in kept)
            row = [AXES[name].title, sizes, curve, f"{first:.3g}", ratios, f"{exponent(points, curve):.2f}"]
            rows.append(row)
    return "\n".join(markdown(["grows", "sizes", "cost", "first", "as multiples of it", "exponent"], rows).splitlines())


@styled
def drawing(found: Mapping[str, Sequence[Point]]) -> Drawing:
    """A log-log panel for each axis."""
    columns = 3
    figure, panels = new_figure(-(-len(found) // columns), columns, 3.2 * -(-len(found) // columns))
    for ax in panels.flat[len(found) :]:
        ax.set_axis_off()
    cells = []
    for ax, (name, points) in zip(panels.flat, found.items(), strict=False):
        for i, curve in enumerate(curves(points)):
            kept = [(p.size, p.values[curve]) for p in points if p.values.get(curve)]
            label = f"{curve}, {exponent(points, curve):.2f}"
            ax.loglog(*zip(*kept, strict=True), color=f"#01f00{i % 7}", marker="o", markersize=3, label=label)
            cells += [[name, size, curve, value] for size, value in kept]
        ax.set_title(AXES[name].title)
        ax.set_ylabel(AXES[name].unit)
        ax.set_xticks([point.size for point in points], minor=False)
        ax.xaxis.set_major_formatter(lambda value, _: short_numbers(float(f"{value:.2g}")))
        ax.xaxis.set_minor_locator(_no_ticks())
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
        ax.legend(fontsize=7)
    caption = "Each line's exponent stands behind its name."
    columns_of_table = ["axis", "size", "cost", "value"]
    return Drawing("growth", "Growth", svg_of(figure, "growth"), caption, columns_of_table, cells)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def read(path: Path) -> dict[str, list[Point]]:
    """What was found before, in the order of `AXES`; nothing if there is no file."""
    stored = json.loads(path.read_text()) if path.is_file() else {}
    return {name: [Point(**point) for point in stored[name]] for name in AXES if name in stored}


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", default=",".join(AXES), help="a,b of " + ", ".join(AXES))
    parser.add_argument("--rounds", type=int, default=3, help="of each measured point, of which the least counts")
    parser.add_argument("--core", type=int, help="pin to this core, and compute with one thread")
    parser.add_argument("--output-dir", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
        os.environ["NPROC"] = "1"  # read when the first array is made
    path = options.output_dir / "growth.json"
    for name in filter(None, options.axes.split(",")):
        if name not in AXES:
            raise unknown_name("axis", name, AXES)
        points = []
        for point in AXES[name].points(options.rounds):
            print(to_json({"axis": name, **point._asdict()}), flush=True)
            points.append(point)
        found = read(path) | {name: points}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json({n: [p._asdict() for p in found[n]] for n in AXES if n in found}) + "\n")
    found = read(path)
    print(table(found))
    if drawn := drawing(found):
        (options.output_dir / "growth.svg").write_text(standalone(drawn.svg))


if __name__ == "__main__":
    exit_with_message(main)
