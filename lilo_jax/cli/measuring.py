"""The verbs that roll questions out and grade: evaluation on test sets, success rates of training questions."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lilo_jax.bounds import check
from lilo_jax.cli.inputs import check_system, stops, task_of, template_text
from lilo_jax.config import Config
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.protocols import Protocol, protocol
from lilo_jax.questions import Task
from lilo_jax.storage.json_lines import check_new_directory, check_output
from lilo_jax.storage.paths import AnyPath


def evaluate(
    model: str | None,
    suite: str,
    protocol: str,
    output: AnyPath,
    generations: AnyPath | None,
    grader: str,
    stop: Sequence[str],
    shots: int,
    template: str,
    template_file: AnyPath | None,
    chat: bool,
    system: str,
    dtype: str,
    max_questions: int,
    workers: int,
    **changes: Any,
) -> None:
    """Evaluates a model on suites, or stored responses again; prints a table."""
    from lilo_jax.grading import grader as grader_of
    from lilo_jax.pretrained import suites as evaluating
    from lilo_jax.pretrained.sources import RunModel, checked_model

    if (model is None) == (generations is None):
        raise UsageError("give either a MODEL, or --generations of an earlier lilo eval")
    check_new_directory(output)
    changes = {name: value for name, value in changes.items() if value is not None}
    again = grader_of(grader) if grader else None
    if generations is not None:
        if changes or suite or protocol or template or template_file or stop or shots or system or max_questions:
            raise UsageError("--generations samples nothing: of the other options it takes --grader only")
        about = {"generations": str(generations), "grader": grader or "as stored"}
        print(evaluating.table(evaluating.regrade(generations, again, output=output, about=about)))
        return
    assert model is not None
    source = checked_model(model)
    run = source.config if isinstance(source, RunModel) else None
    template, chat = template_text(template, template_file), chat or bool(run and run.tokenizer.chat)
    check_system(system, chat=chat)
    named = _protocol(protocol or "greedy", grader=grader, template=template, **changes)
    how = dataclasses.replace(named, stop=stops([*(run.rollout.stop if run else ()), *named.stop, *stop]))
    tasks = _suites(run, suite or ("task" if run else ""), how, shots=shots, chat=chat)
    found = evaluating.evaluate_suites(
        source,
        tasks,
        how,
        output=output,
        about={"model": model, "protocol": protocol or "greedy", "shots": shots, **dataclasses.asdict(how)},
        chat=chat,
        system=system or (run.tokenizer.system if run else ""),
        dtype=dtype,
        max_questions=max_questions,
        min_new_tokens=min(run.rollout.min_new_tokens, how.max_new_tokens) if run else 0,
        workers=workers,
    )
    print(evaluating.table(found))
    print(f"\nresponses and results: {output}")


def _protocol(name: str, **changes: Any) -> Protocol:
    """The protocol of a name, changed where something was given."""
    given = {field: value for field, value in changes.items() if value not in (None, "")}
    found = dataclasses.replace(protocol(name), **given)
    check(found)
    return found


def _suites(run: Config | None, names: str, protocol: Protocol, *, shots: int, chat: bool) -> dict[str, Task]:
    """The tasks of a comma-separated list, in its order; `task` is the own one of a run, which the others follow."""
    from lilo_jax.tasks.shots import with_shots
    from lilo_jax.tasks.suites import inherited, only_test, suites, with_settings
    from lilo_jax.training.lengths import without_longer

    given = [name.strip() for name in names.split(",") if name.strip()]
    if not given:
        raise UsageError("--suite needs one or more names, such as gsm8k,math500=data/math500")
    if "task" in given and run is None:
        raise UsageError("--suite task is the task of a run, and the model is none: name a suite")
    if given.count("task") > 1:
        raise UsageError("suite 'task' is given twice")
    settings = inherited(run.task if run else None, template=protocol.template, grader=protocol.grader)
    found = suites([name for name in given if name != "task"], shots=shots, **settings)
    if run is not None and "task" in given:
        own = with_settings(run.task, template=protocol.template, grader=protocol.grader, shots=shots)
        found["task"] = only_test(without_longer(run, with_shots(own.build(run.seed), chat=chat)))
    first = run.task.build(run.seed).shots if run and not shots and getattr(run.task, "shots", None) else ()
    for name in found.keys() - {"task"}:
        found[name] = with_shots(found[name]._replace(shots=found[name].shots or first), chat=chat)
    return {name: found[name] for name in (each.partition("=")[0] for each in given)}


def passrates(
    model: str,
    task: str,
    split: str,
    output: AnyPath,
    keep: str,
    grader: str,
    template: str,
    template_file: AnyPath | None,
    chat: bool,
    system: str,
    dtype: str,
    workers: int,
    stop: Sequence[str],
    **sampling: Any,
) -> None:
    """Measures how often a model solves each question."""
    from lilo_jax.pretrained import passrates as rates
    from lilo_jax.pretrained.sources import checked_model

    check_output(output)
    bounds = _bounds(keep) if keep else None
    check_system(system, chat=chat)
    protocol = Protocol(**sampling, stop=stops(stop))
    check(protocol)
    spec = task_of(task, template=template_text(template, template_file), grader=grader)
    about = {"model": model, "task": dataclasses.asdict(spec), "split": split, "chat": chat, "system": system}
    rates.settle(output, about | dataclasses.asdict(protocol))
    lines = rates.measure(
        checked_model(model), spec.build(sampling["seed"]), split, protocol, output, chat=chat, system=system,
        dtype=dtype, workers=workers,
    )  # fmt: skip
    print(rates.histogram(lines))
    if bounds:
        kept = rates.keep(lines, *bounds, output, sampling["seed"])
        print(f"{kept} kept in {output.stem}.kept.jsonl, and as many at random in {output.stem}.control.jsonl")


def _bounds(text: str) -> tuple[float, float]:
    """Of LOW,HIGH."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise UsageError(f"--keep is LOW,HIGH with 0 <= LOW <= HIGH <= 1, such as 0.1,0.9, not {text}")
    return low, high
