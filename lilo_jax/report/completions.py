"""Completions that a run recorded, as a list that the page's script filters."""

import itertools
from collections.abc import Mapping
from typing import Any

from lilo_jax.report.page import escaped
from lilo_jax.report.summary import Arms
from lilo_jax.storage.run_directory import RunDirectory

MOST = 240
"""Completions in a report, shared by its arms."""
STEPS = 8
"""Recorded steps of an arm that they are taken from, the first and the last among them."""
LONGEST = 1500
"""Characters shown of a prompt or a response."""

Records = list[dict[str, Any]]


def completions_element(arms: Arms) -> str:
    """Completions of the first seed of every arm that recorded any, and the form that filters them; "" for none."""
    recorded = {arm: found for arm, runs in arms.items() if (found := _recorded(runs))}
    if not recorded:
        return ""
    each = MOST // len(recorded)
    items, verdicts = [], set()
    for number, arm in enumerate(recorded):
        seed, steps = recorded[arm]
        for step, records in steps.items():
            for record in chosen(records, max(each // (2 * len(steps)), 1)):
                items.append(_item(number, f"{arm}, seed {seed}, step {step}", record))
                verdicts.add(record["verdict"])
    return (
        f'<h2>Completions</h2>\n{_form(list(recorded), sorted(verdicts))}<ol class="completions">\n'
        + "\n".join(items)
        + '\n</ol><button type="button" class="more" hidden>Show more</button>'
        f'<p class="note">Right and other completions in equal numbers, of different questions where there are any, of '
        f"at most {STEPS} of the steps whose rollouts were recorded: how many of each are shown says nothing of "
        f"accuracy.</p>"
    )


def _recorded(runs: Mapping[int, RunDirectory]) -> tuple[int, dict[int, Records]] | None:
    """Seed, and rollouts by step, of the first run that has any; of many steps some, evenly spaced."""
    for seed, run in runs.items():
        found = [(step, records) for step, records in sorted(run.rollouts().items()) if records]
        if found:
            number = min(STEPS, len(found))
            places = [round(i * (len(found) - 1) / max(number - 1, 1)) for i in range(number)]
            return seed, dict(found[place] for place in places)
    return None


def chosen(records: Records, number: int) -> Records:
    """At most `number` right completions and as many others in turn, one per question while there are enough."""
    kinds = []
    for correct in (True, False):
        alike = [record for record in records if (record["verdict"] == "correct") == correct]
        firsts = list({record["question"]: record for record in reversed(alike)}.values())[::-1]
        kinds.append((firsts + [record for record in alike if record not in firsts])[:number])
    return [record for pair in itertools.zip_longest(*kinds) for record in pair if record is not None]


def _form(arms: list[str], verdicts: list[str]) -> str:
    """The filter; it is hidden until the script that serves it runs."""

    def select(name: str, options: list[tuple[str, str]]) -> str:
        shown = "".join(f'<option value="{value}">{escaped(text)}</option>' for value, text in [("", "all"), *options])
        return f'<label>{name}<select name="{name}">{shown}</select></label>'

    by_arm = select("arm", [(str(number), arm) for number, arm in enumerate(arms)])
    by_verdict = select("verdict", [(verdict, verdict.replace("_", " ")) for verdict in verdicts])
    return (
        f'<form class="filter" role="search" aria-label="Filter completions" hidden>{by_arm}{by_verdict}'
        f'<label>text<input type="search" name="text"></label><output aria-live="polite"></output></form>\n'
    )


def _item(arm: int, about: str, record: Mapping[str, Any]) -> str:
    def cut(text: str) -> str:
        return escaped(text if len(text) <= LONGEST else text[:LONGEST] + " ...")

    question = ", ".join(filter(None, (record.get("id"), record.get("where"))))  # older records have neither
    fields = {"question": question, **{name: record[name] for name in ("prompt", "gold", "response")}}
    pairs = "".join(f"<dt>{name}</dt><dd>{cut(text)}</dd>" for name, text in fields.items() if text)
    verdict = record["verdict"]
    return (
        f'<li data-arm="{arm}" data-verdict="{verdict}" tabindex="-1"><p>{escaped(about)}: '
        f'<span class="verdict {verdict}">{verdict.replace("_", " ")}</span></p><dl>{pairs}</dl></li>'
    )
