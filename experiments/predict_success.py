"""Can success on a question be predicted before it is rolled out, and from what?  Probes, cross-validated.

    python -m experiments.predict_success --model.path MODEL --task.path questions.jsonl --rollout.max-new-tokens 24

Training questions are drawn at random; the model answers each `--rollout.samples` times, and that share of right
answers, p, is predicted by logistic ridge regression from kinds of features (experiments/question_features.py): counts
of the text, the model's surprise at the question, its hidden states (layers x spans, as they are, as principal
components, projected at random as `frontier` does), and the outcomes of an earlier visit of `--visit` other rollouts.

A prediction comes from a regression that saw no outcome of the question's fold; the ridge is chosen inside the other
folds.  Measures are means over folds and over `--partitions` into folds, with 95% bootstrap intervals over questions.
The last row is what p itself would score, as 16 rollouts measure it with noise.  Fine-tuned or instructed, small or
large: the numbers are of this model, these questions and this prompt.

Compare with Lugoloobi et al. 2026 (arXiv:2602.09924: AUROC .76 to .84 of probes on the prompt's states, .61 to .73 of
length and words) and POISE (arXiv:2605.07579: Pearson's r .57 of the prompt's states with p).

Writes `table.md` and `results.json`, and keeps what it measured: the same command goes on where it was stopped, and
`--from-dir DIR` reads the measurements of another directory and needs no model.
"""

import dataclasses
import io
import itertools
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import tyro

from experiments.question_features import Measured, features, frontiers, read_states, read_surprise
from experiments.runner import print_config
from lilo_jax import config as configuration
from lilo_jax.bounds import check
from lilo_jax.config import Config, Launch
from lilo_jax.errors import RunError, UsageError, unknown_name
from lilo_jax.evaluation.generations import Generations, read_generations, respond
from lilo_jax.evaluation.prediction import (
    MEASURES,
    agreement_of_halves,
    ceiling,
    cross_validated,
    folds_of,
    intervals,
    over_folds,
)
from lilo_jax.evaluation.protocols import Protocol
from lilo_jax.evaluation.responses import ResponseGrader
from lilo_jax.grading.workers import Grade, GradingWorkers
from lilo_jax.pretrained.inference import LoadedModel, generate, load
from lilo_jax.pretrained.sources import checked_model, decoder_config
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.questions import Question
from lilo_jax.report.tables import interval, markdown, number
from lilo_jax.storage.compilation_cache import keep_compiled_programs
from lilo_jax.storage.files import whole_file, write_whole
from lilo_jax.storage.json_lines import read_records, to_json, write_records
from lilo_jax.storage.paths import AnyPath, path_of
from lilo_jax.storage.redaction import redacted
from lilo_jax.tokenizers.encoding import question_ids
from lilo_jax.tokenizers.lengths import Asked, check_lengths
from lilo_jax.types import Completions

BLOCK = 16
"""Questions that are rolled out, and written, at a time."""
RESAMPLES = 200
SETTINGS, ROLLOUTS, FEATURES = "settings.json", "rollouts", "features.npz"
USED = (
    *("seed", "task.", "tokenizer.chat", "model.path", "model.revision", "model.compute_dtype", "rollout.samples"),
    *("rollout.max_new_tokens", "rollout.min_new_tokens", "rollout.stop", "rollout.temperature", "rollout.top_p"),
)
"""The options of a run that make a difference here."""
LAUNCH = ("output_dir", "graders", "print_config", "debug")
MEASURED = ("questions", "split", "visit")
"""The options that a directory of measurements has settled."""


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """The command line."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()
    launch: Annotated[Launch, tyro.conf.arg(name="")] = Launch(output_dir="runs/predict_success")
    questions: int = 200
    """how many are drawn"""
    split: str = "train"
    """of the task, from which they are drawn"""
    visit: int = 4
    """rollouts of an earlier visit, beside those of which success is predicted"""
    folds: int = 5
    """parts of the questions, each predicted from the others; at least 3"""
    partitions: int = 5
    """ways to part them; the seeds of the table"""
    from_dir: str = ""
    """directory of an earlier call, whose measurements are read; the options of model, task and rollout are its own"""


def config() -> Config:
    """The defaults of a run, with enough rollouts to know p."""
    return configuration.replace(Config(), rollout__samples=32)


def main() -> None:
    """Measures what is not measured yet, and writes the table."""
    options = configuration.parse(
        PredictOptions(config=config()),
        sys.argv[1:],
        prog="python -m experiments.predict_success",
        description=__doc__ or "",
    )
    if print_config(options.config, options.launch):
        return
    _refuse(options)
    keep_compiled_programs()
    output = path_of(options.launch.output_dir)
    source = path_of(options.from_dir) if options.from_dir else output
    if not options.from_dir:
        measure(options, output)
    settings, measured = read(source)
    command = shlex.join(["python", "-m", "experiments.predict_success", *redacted(sys.argv[1:])])
    report(output, {"command": command, **settings}, measured, options)


def _refuse(options: PredictOptions) -> None:
    """Refuses what would be ignored, and numbers that allow no cross-validation."""
    check(options.config)
    if ignored := _ignored(options):
        raise UsageError(f"--{ignored[0].replace('_', '-')} would be ignored: leave it out")
    if not options.from_dir and not options.config.model.path:
        raise UsageError("there is no model: pass --model.path DIRECTORY, or --from-dir of an earlier call")
    if min(options.visit, options.partitions) < 1 or options.folds < 3 or options.questions < 4 * options.folds:
        raise UsageError(
            "--visit and --partitions must be at least 1, --folds at least 3, and --questions four times as many"
        )
    if options.config.rollout.samples < 4:
        raise UsageError("--rollout.samples must be at least 4: from fewer p is not known")


def _ignored(options: PredictOptions) -> list[str]:
    """The options that were given and make no difference."""
    asked, usual = (configuration.flat(configuration.to_dict(c)) for c in (options.config, config()))
    used = () if options.from_dir else USED
    found = [path for path, value in asked.items() if value != usual.get(path) and not path.startswith(used)]
    default = PredictOptions()
    found += [f for f in vars(default.launch) if f not in LAUNCH and _differ(options.launch, default.launch, f)]
    found += [f for f in MEASURED if options.from_dir and _differ(options, default, f)]
    return [path.removesuffix(".name") for path in found]


def _differ(given: Any, usual: Any, field: str) -> bool:
    return getattr(given, field) != getattr(usual, field)


# ----------------------------------------------------------------------------------------------------------- measuring
def measure(options: PredictOptions, path: AnyPath) -> None:
    """Leaves in a directory what is known of the questions; what is there already is not computed again."""
    config = options.config
    source = checked_model(config.model.path)
    tokenizer, decoder = source.tokenizer(), decoder_config(source)
    task = config.task.build(config.seed)
    questions = _drawn(task.splits, options)
    new, chat = config.rollout.max_new_tokens, config.tokenizer.chat
    asked = {options.split: Asked(questions, new, "--rollout.max-new-tokens", bounded=True)}
    check_lengths(tokenizer, asked, decoder.context_length, chat=chat)
    prompts = [question_ids(tokenizer, question, chat=chat) for question in questions]
    _begin(path, {"config": configuration.to_dict(config)} | {name: getattr(options, name) for name in MEASURED})
    rollout = config.rollout
    loaded = load(
        source,
        dtype=config.model.compute_dtype,
        tokenizer=tokenizer,
        stop=rollout.stop,
        min_new_tokens=rollout.min_new_tokens,
    )
    samples = options.visit + rollout.samples
    protocol = Protocol(samples, rollout.temperature, rollout.top_p, new, rollout.stop, seed=config.seed)
    with GradingWorkers(count=options.launch.graders) as workers:
        graders = ResponseGrader(workers, tokenizer, rollout.stop)
        roll_out(loaded, graders, task.grade, questions, prompts, protocol, path / ROLLOUTS)
    if not (path / FEATURES).exists():
        print("hidden states", file=sys.stderr, flush=True)
        layers, states = read_states(loaded, prompts, decoder.num_layers)
        reading = read_surprise(loaded, prompts, tokenizer.pad_id)
        prefilled = np.sum([len(ids) for ids in prompts])
        with whole_file(path / FEATURES) as file:
            np.savez(file, layers=layers, states=states, reading=reading, prefilled=prefilled)


def _drawn(splits: Any, options: PredictOptions) -> list[Question]:
    """Some questions of the split, in the order in which they were drawn."""
    if options.split not in splits:
        raise unknown_name("split", options.split, splits)
    pool = splits[options.split]
    if options.questions > len(pool):
        raise UsageError(f"the split {options.split!r} has {len(pool)} questions: lower --questions")
    rng = np.random.default_rng(options.config.seed)
    return [pool[i] for i in rng.choice(len(pool), options.questions, replace=False)]


def _begin(path: AnyPath, settings: dict[str, Any]) -> None:
    """A directory of measurements with these settings, new or to be gone on with."""
    stored, text = path / SETTINGS, to_json(settings, indent=1) + "\n"
    if stored.is_file():
        if stored.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"{path} holds measurements with other settings: pass another --output-dir, or --from-dir {path}"
            )
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is not empty: pass another --output-dir")
    (path / ROLLOUTS).mkdir(parents=True)
    write_whole(stored, text)


def roll_out(
    loaded: LoadedModel,
    graders: ResponseGrader,
    grade: Grade,
    questions: Sequence[Question],
    prompts: Sequence[Sequence[int]],
    protocol: Protocol,
    path: AnyPath,
) -> None:
    """Writes a file of graded responses for every block of questions that has none; draws depend on no other block."""
    for start in range(0, len(questions), BLOCK):
        part, file = questions[start : start + BLOCK], path / f"{start:06d}.jsonl"
        if file.exists():
            if [one.question.id for one in read_generations(file)] != [question.id for question in part]:
                raise UsageError(f"{file} holds other questions than the task: pass another --output-dir")
            continue
        surprise: list[list[float]] = []

        def answers(protocol: Protocol, start: int = start, surprise: list = surprise) -> Iterator[Completions]:
            found = generate(loaded, prompts, protocol, rows=BLOCK * protocol.samples, first=start)
            for one in itertools.islice(found, min(BLOCK, len(prompts) - start)):
                surprise.append((-one.logprobs.sum(axis=1) / np.maximum(one.lengths, 1)).tolist())
                yield one

        generations = respond(answers, graders, grade, part, protocol)
        records = zip(generations, surprise, strict=True)
        write_records(file, (one.record() | {"surprise": own} for one, own in records))
        print(f"rolled out {start + len(part)} of {len(questions)} questions", file=sys.stderr, flush=True)


def read(path: AnyPath) -> tuple[dict[str, Any], Measured]:
    """The settings of a directory of measurements, and what it holds; tokens that it took are among the settings."""
    if not (path / FEATURES).is_file():
        raise UsageError(f"{path} holds no finished measurements: pass the --output-dir of an earlier call")
    settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
    files: list[AnyPath] = sorted((path / ROLLOUTS).glob("*.jsonl"))
    records = [record for file in files for _, record in read_records(file)]
    generations = [Generations.of(record) for record in records]
    stored = np.load(io.BytesIO((path / FEATURES).read_bytes()))
    generated = sum(r.tokens for one in generations for r in one.responses)
    prefilled = int(stored["prefilled"])
    settings["tokens"] = {"generated": generated, "prefilled": prefilled, "scored": 2 * prefilled}
    surprise = np.array([record["surprise"] for record in records], np.float64)
    states, reading = stored["states"], stored["reading"]
    return settings, Measured(generations, surprise, stored["layers"].tolist(), states, reading, settings["visit"])


# ----------------------------------------------------------------------------------------------------------- the table
def report(path: AnyPath, about: dict[str, Any], measured: Measured, options: PredictOptions) -> None:
    """Prints the table, and writes it beside the numbers."""
    measured = graded(measured)
    if len(measured.generations) < 4 * options.folds:
        raise RunError(
            f"only {len(measured.generations)} questions could be graded: lower --folds, or take more of them"
        )
    successes, attempts = counted(measured)
    if len(np.unique(successes / attempts)) == 1:
        raise RunError(
            f"every question is solved at the same rate, {successes[0] / attempts[0]:.2f}, so that there is nothing to "
            f"predict: take other questions, --rollout.max-new-tokens, or worked examples in --task.template"
        )
    results = about | {"folds": options.folds, "partitions": options.partitions} | compare(measured, options)
    table = "\n".join(lines(results)) + "\n"
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / "results.json", to_json(results, indent=1) + "\n")
    write_whole(path / "table.md", table)
    print(table)


def graded(measured: Measured) -> Measured:
    """The questions of which a rollout of the visit, and at least two of the others, could be graded."""
    known = ~np.isnan(measured.correct)
    visited, tried = known[:, : measured.visit].any(axis=1), known[:, measured.visit :].sum(axis=1) > 1
    return measured.of(np.flatnonzero(visited & tried))


def counted(measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Successes and graded attempts of what is to be predicted, float64 [Q]."""
    outcomes = measured.correct[:, measured.visit :]
    return np.nansum(outcomes, axis=1), (~np.isnan(outcomes)).sum(axis=1).astype(float)


def compare(measured: Measured, options: PredictOptions) -> dict[str, Any]:
    """What the questions are like, and every measure of every kind of features."""
    successes, attempts = counted(measured)
    count = len(attempts)
    folds = [folds_of(count, options.folds, seed) for seed in range(options.partitions)]
    resampled = np.random.default_rng(count).integers(count, size=(RESAMPLES, count))
    means, draws, widths = {}, {}, {}
    for name, columns in features(measured):
        predicted = [cross_validated(columns, successes, attempts, fold) for fold in folds]
        each = [over_folds(m, successes, attempts, fold) for m, fold in zip(predicted, folds, strict=True)]
        means[name], widths[name] = np.mean(each, axis=0), columns.shape[1]
        # A resample looks at one partition: the spread over partitions is a part of the interval.
        draws[name] = np.array(
            [
                over_folds(predicted[i % len(folds)], successes, attempts, folds[i % len(folds)], chosen)
                for i, chosen in enumerate(resampled)
            ]
        )
    base = frontiers(measured)
    rates = successes / attempts
    return {
        "graded_questions": count,
        "success_mean": float(rates.mean()),
        "never": float(np.mean(successes == 0)),
        "always": float(np.mean(successes == attempts)),
        "histogram": np.bincount(successes.astype(int), minlength=int(attempts.max()) + 1).tolist(),
        "halves": agreement_of_halves(measured.correct[:, measured.visit :]),
        "ceiling": ceiling(successes, attempts, seed=0),
        "frontier": base,
        "features": {
            name: {
                "width": widths[name],
                **_with_intervals(MEASURES, means[name], draws[name]),
                "less_frontier": _with_intervals(MEASURES, means[name] - means[base], draws[name] - draws[base]),
            }
            for name in means
        },
    }


def _with_intervals(names: Any, mean: np.ndarray, draws: np.ndarray) -> dict[str, dict[str, float]]:
    low, high = intervals(draws)
    return {
        name: {"mean": float(m), "low": float(a), "high": float(b)}
        for name, m, a, b in zip(names, mean, low, high, strict=True)
    }


def lines(results: dict[str, Any]) -> list[str]:
    """The results in Markdown."""
    config, mixed = results["config"], 1 - results["never"] - results["always"]
    head = (
        f"{results['graded_questions']} questions, {config['rollout']['samples']} rollouts each and {results['visit']} "
        f"of an earlier visit; {results['tokens']['generated']:,} tokens generated.  Mean p "
        f"{results['success_mean']:.3f}; {results['never']:.0%} never solved, {results['always']:.0%} always, "
        f"{mixed:.0%} mixed.  Questions by successes, from 0: {' '.join(map(str, results['histogram']))}."
    )
    shown = [name for name in MEASURES if name != "auroc_median" or _differs(results)]
    columns = ["features", "columns", *(MEASURES[name] for name in shown), "AUROC less frontier's"]
    rows = [_row(name, found, shown, results) for name, found in results["features"].items()]
    rows.append(["p itself", "", *(number(_known(results["ceiling"][name]), ".3f") for name in shown), ""])
    notes = (
        f"Means over {results['partitions']} partitions into {results['folds']} folds; 95% bootstrap intervals over "
        f"questions.  {len(rows) - 1} kinds of features are compared: the best of them is partly luck.  p itself: what "
        f"a perfect prediction would score, with p from a Beta distribution fitted to the counts.  Rates in one half "
        f"of the rollouts and in the other: Spearman {number(_known(results['halves']), '.3f')}."
    )
    return [head, "", markdown(columns, rows), "", notes]


def _differs(results: dict[str, Any]) -> bool:
    """Whether the median rate is another threshold than 0."""
    return results["never"] < 0.5


def _row(name: str, found: dict[str, Any], shown: Sequence[str], results: dict[str, Any]) -> list[str]:
    label = f"**{name} (frontier's)**" if name == results["frontier"] else name
    cells = [_cell(found[measure], measure in ("auroc", "spearman", "log_loss")) for measure in shown]
    return [label, str(found["width"]), *cells, _cell(found["less_frontier"]["auroc"], True, "+.3f")]


def _cell(value: dict[str, float], with_interval: bool, form: str = ".3f") -> str:
    known = {name: _known(one) for name, one in value.items()}
    return number(known["mean"], form) + (interval(known, form) if with_interval else "")


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


if __name__ == "__main__":
    exit_with_message(main)
