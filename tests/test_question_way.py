"""One question on its way from its line in a file to the optimiser and back, through the files that the docs name."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from lilo_jax import config as configuration
from lilo_jax.curriculum.features import no_facts
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.keys import start_keys
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger
from lilo_jax.tasks.dataset import Dataset
from lilo_jax.tokenizers.sentence_piece import TokenizerConfig
from lilo_jax.training.accounting import rollout_records
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check
from lilo_jax.training.collection import collect
from lilo_jax.training.trainer import admit, make_batch, update

ROOT = pathlib.Path(__file__).parent.parent
LINES = 40


def test_the_docs_name_at_most_twelve_files():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## The way of a question")[2].partition("\n## ")[0]
    named = [name for name in re.findall(r"`([\w/]+\.py)`", section) if not name.startswith("tests/")]
    assert len(set(named)) == 11
    for name in named:
        assert (ROOT / "lilo_jax" / name).is_file(), name


@pytest.mark.slow
def test_a_question_comes_from_its_line_to_the_optimiser_and_back(tiny_config, tmp_path):
    rows = [{"id": f"q{i}", "question": f"{i}+{i}=", "answer": str(2 * i)} for i in range(LINES)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configuration.replace(
        tiny_config, task=Dataset(path=str(path)), tokenizer=TokenizerConfig(kind="char"), model__vocab_size=0,
        curriculum=Uniform(), algorithm=Rloo(),
    )  # fmt: skip
    task = check(config)
    assembly = assemble(config, task)
    for place, question in enumerate(assembly.pool.questions):
        number = int(question.id.removeprefix("q"))
        assert question.where == f"{path}, line {number + 1}"
        ids = assembly.pool.tokens[place, : assembly.pool.lengths[place]].tolist()
        assert f"{number}+{number}=" in assembly.tokenizer.decode(ids)
    params = assembly.programs.init(jax.random.key(0))
    state = assembly.programs.start(params, None, start_keys(0), no_facts(len(assembly.pool.questions)))
    clock, ledger = PhaseClock(), Ledger()
    collected = collect(assembly.collector, state, assembly.policy(state), 0, clock)
    admission, state = admit(assembly.collector, state, collected, 0, clock)
    batch = make_batch(assembly, state, collected, admission, None, 0, ledger, clock)
    places = np.asarray(batch.place)[np.asarray(batch.group_mask)]
    assert len(set(places.tolist())) == config.rollout.questions
    for row, group in enumerate(np.asarray(batch.group)):
        length = int(batch.sequences.prompt_lengths[row])
        own = assembly.pool.tokens[places[group]][:length]
        np.testing.assert_array_equal(np.asarray(batch.sequences.tokens)[row, :length], own)
    records = rollout_records(assembly.pool, collected, admission)
    by_id = {question.id: place for place, question in enumerate(assembly.pool.questions)}
    assert {by_id[record["id"]] for record in records if record["admitted"]} == set(places.tolist())
    assert all(record["where"].endswith(f"line {int(record['id'][1:]) + 1}") for record in records)
    state, metrics = update(assembly, state, batch, 0, clock)
    assert float(metrics["update/useful_tokens"].total) > 0
    visits = np.zeros(len(assembly.pool.questions), int)
    visits[places] = 1
    np.testing.assert_array_equal(np.asarray(state.curriculum.visits), visits)
