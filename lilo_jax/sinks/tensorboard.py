"""TensorBoard: event files in the run's directory; `tensorboard --logdir runs` shows all runs below `runs`."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lilo_jax.storage.run_directory import RunDirectory


class TensorBoard:
    """Writes event files."""

    run = ""

    def __init__(self, folder: str) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._events, self._summaries = event_pb2, summary_pb2
        self._writer = EventFileWriter(folder)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, [self._summaries.Summary.Value(tag=name, simple_value=v) for name, v in values.items()])

    def histograms(self, step: int, counts: Mapping[str, Sequence[int]]) -> None:
        found = {name: self._summaries.HistogramProto(**_histogram(own)) for name, own in counts.items()}
        self._write(
            step, [self._summaries.Summary.Value(tag=name, histo=histogram) for name, histogram in found.items()]
        )

    def close(self, *, failed: bool) -> None:
        self._writer.close()

    def _write(self, step: int, values: list[Any]) -> None:
        summary = self._summaries.Summary(value=values)
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()


def open_sink(directory: RunDirectory, run: str) -> TensorBoard:
    """A new event file: TensorBoard reads all of a directory as one run."""
    return TensorBoard(str(directory.path / "tensorboard"))


def _histogram(counts: Sequence[int]) -> dict[str, Any]:
    """The fields of a histogram with a bucket of width 1 around every number of correct rollouts."""
    filled = [i for i, count in enumerate(counts) if count]
    return {
        "min": min(filled, default=0),
        "max": max(filled, default=0),
        "num": sum(counts),
        "sum": sum(i * count for i, count in enumerate(counts)),
        "sum_squares": sum(i * i * count for i, count in enumerate(counts)),
        "bucket_limit": [i + 0.5 for i in range(len(counts))],
        "bucket": counts,
    }
