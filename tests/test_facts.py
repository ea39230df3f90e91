"""What a curriculum is told of the questions, on a tiny assembly: features, measured and exact success rates."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, ModelConfig
from lilo_jax.curriculum.contract import Wants
from lilo_jax.curriculum.features import standardized
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.device.mesh import put_replicated
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.held_out import exact_rates
from lilo_jax.evaluation.protocols import EvaluationConfig
from lilo_jax.keys import start_keys
from lilo_jax.questions import Verdict
from lilo_jax.rl.rloo import Rloo
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.clock import PhaseClock
from lilo_jax.storage.ledger import Ledger, training_total
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.noise import NoiseConfig, plant
from lilo_jax.tokenizers import SentencePiece
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check
from lilo_jax.training.facts import question_facts, refresh_facts
from lilo_jax.training.run import run
from lilo_jax.types import Prompts

POOL, EVERY = 19, 3  # a pool that does not fill its last block of rows


@dataclasses.dataclass(frozen=True)
class Knowing(Uniform):
    """Uniform, but wants to know something."""

    wants: Wants = Wants()

    def build(self, *, pool_size, questions, samples):
        return super().build(pool_size=pool_size, questions=questions, samples=samples)._replace(wants=self.wants)


CONFIG = Config(
    num_steps=8,
    task=Chain(pool=POOL, validation=4, test=4, longer=4, demonstrations=32),
    model=ModelConfig(num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24),
    rollout=RolloutConfig(questions=4, samples=2, max_new_tokens=4),
    algorithm=Rloo(),
    evaluation=EvaluationConfig(rows=8),
)


def grade_by_question(question, response):
    """Right, wrong and failing questions, whatever is answered."""
    return (Verdict.CORRECT, Verdict.WRONG, Verdict.TIMEOUT)[ord(question.prompt[0]) % 3]


def grade_by_response(question, response):
    return Verdict.TIMEOUT if len(response) % 3 == 2 else Verdict.CORRECT if len(response) % 3 else Verdict.WRONG


@functools.cache
def task_and_tokenizer(ends):
    task = CONFIG.task.build(0)
    texts = [prompt + response for prompt, response in task.demonstrations]
    tokenizer = SentencePiece.train(texts + [q.prompt for q in task.splits["train"]], kind="char", vocab_size=64)
    tokenizer.end_ids = {"usual": tokenizer.end_ids, "half": tuple(range(0, 64, 2)), "all": tuple(range(64))}[ends]
    return task, tokenizer


def assembly_of(wants, *, grade=None, ends="usual", **changes):
    """A tiny run; `ends` says which tokens end a completion, for those that do not end are wrong ungraded."""
    task, tokenizer = task_and_tokenizer(ends)
    config = configuration.replace(CONFIG, curriculum=Knowing(wants), **changes)
    return assemble(config, task if grade is None else task._replace(grade=grade), tokenizer=tokenizer)


def with_questions(assembly, change):
    """The assembly with other records of the same questions."""
    questions = [dataclasses.replace(q, **change(i, q)) for i, q in enumerate(assembly.pool.questions)]
    return dataclasses.replace(assembly, pool=dataclasses.replace(assembly.pool, questions=questions))


@pytest.fixture(scope="module")
def params(random_weights):
    """(assembly, seed) -> weights on its mesh; starting a run gives them away."""

    def make(assembly, seed=0):
        shapes = jax.eval_shape(assembly.programs.init, jax.random.key(0))
        return put_replicated(assembly.mesh, random_weights(shapes, seed=seed, deviation=0.3))

    return make


def started(assembly, params, ledger):
    facts = question_facts(assembly, params(assembly), ledger)
    return assembly.programs.start(params(assembly), None, start_keys(1), facts)


def with_policy(state, params):
    return state.replace(policy=state.policy.replace(params=params))


# ------------------------------------------------------------------------------------------------------------ features
def test_entropies_of_prompts_are_a_feature_made_anew_when_due_and_paid_for(params):
    """Of every token of a prompt but the first, by the logits of whole prompts, one prompt at a time."""
    assembly, ledger = assembly_of(Wants(entropy=True, refresh_every=EVERY)), Ledger()
    state = started(assembly, params, ledger)
    pool, model, temperature = assembly.pool, assembly.programs.model, assembly.config.rollout.temperature

    def expected(weights):
        found = []
        for tokens, length in zip(pool.tokens, pool.lengths, strict=True):
            states = model.hidden(weights, tokens[None, :length])
            p = jax.nn.softmax(model.project(model.head(weights), states[0, :-1]) / temperature)
            found.append(float(-(p * np.log(p)).sum(axis=1).mean()))
        return standardized([np.array(found)[:, None]])

    before = np.asarray(state.curriculum.facts.features)
    np.testing.assert_allclose(before, expected(params(assembly)), rtol=1e-3, atol=1e-3)
    other = with_policy(state, params(assembly, seed=1))
    assert refresh_facts(assembly, other, EVERY + 1, ledger, PhaseClock()) is other
    made_anew = refresh_facts(assembly, other, EVERY, ledger, PhaseClock()).curriculum.facts.features
    np.testing.assert_allclose(made_anew, expected(params(assembly, seed=1)), rtol=1e-3, atol=1e-3)
    assert np.abs(made_anew - before).max() > 0.1
    assert ledger.to_dict()["features/scored"] == 2 * pool.lengths.sum()


def test_hidden_states_are_features_made_anew_when_due_and_paid_for(params):
    assembly, ledger = assembly_of(Wants(hidden=5, refresh_every=EVERY)), Ledger()
    pool, state = assembly.pool, started(assembly, params, ledger)

    def expected(weights):
        """All prompts at once, where the code goes through them in blocks."""
        states = assembly.programs.features(weights, Prompts(pool.tokens, pool.lengths))
        return standardized(list(np.asarray(states)))

    np.testing.assert_allclose(state.curriculum.facts.features, expected(params(assembly)), atol=2e-4)
    booked = [ledger.to_dict()["features/scored"]]
    for step in range(2 * EVERY + 2):
        state = with_policy(state, params(assembly, seed=step))
        before = np.asarray(state.curriculum.facts.features)
        state = refresh_facts(assembly, state, step, ledger, PhaseClock())
        due = step in (EVERY, 2 * EVERY)
        assert np.array_equal(before, state.curriculum.facts.features) != due
        if due:
            new = expected(params(assembly, seed=step))
            np.testing.assert_allclose(state.curriculum.facts.features, new, atol=2e-4)
        booked.append(ledger.to_dict()["features/scored"])
    times = [1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert booked == [n * pool.lengths.sum() for n in times]
    assert {name for name, tokens in ledger.to_dict().items() if tokens} == {"features/scored"}


def test_features_of_the_text_cost_nothing_and_stay(params):
    assembly, ledger = assembly_of(Wants(tokens=4, pairs=4, refresh_every=1)), Ledger()
    state = started(assembly, params, ledger)
    assert refresh_facts(assembly, state, 2, ledger, PhaseClock()) is state
    assert not any(ledger.to_dict().values())


def test_difficulty_is_no_feature(params):
    """Pools that differ in the generator's difficulty, answers and traps have the same facts."""
    assembly = assembly_of(Wants(tokens=4, pairs=4, hidden=3))
    other = with_questions(assembly, lambda i, q: {"difficulty": 100.0 * i, "answer": str(i), "trap": "coin_flip"})
    assert [q.difficulty for q in other.pool.questions] != [q.difficulty for q in assembly.pool.questions]
    found, same = (question_facts(a, params(assembly), Ledger()) for a in (assembly, other))
    jax.tree.map(np.testing.assert_array_equal, found, same)
    assert np.asarray(found.features).std(axis=0)[:-1].max() > 0.1  # they do tell questions apart
    renamed = with_questions(assembly, lambda i, q: {"text": q.prompt + "9" * i})
    assert not np.array_equal(question_facts(renamed, params(assembly), Ledger()).features, found.features)


def test_categories_are_numbered_and_levels_kept(params):
    assembly = with_questions(assembly_of(Wants()), lambda i, q: {"category": "cab"[i % 3], "level": i % 5})
    facts = question_facts(assembly, params(assembly), Ledger())
    assert facts.category.tolist() == [(2, 0, 1)[i % 3] for i in range(POOL)]
    assert facts.level.tolist() == [i % 5 for i in range(POOL)]
    assert facts.features is None


# --------------------------------------------------------------------------------------------------------------- rates
def test_measured_rates_are_those_of_graded_rollouts_and_are_paid_for(params):
    assembly, ledger = assembly_of(Wants(grade=3), grade=grade_by_question, ends="all"), Ledger()
    grade = question_facts(assembly, params(assembly), ledger).grade
    rate = {Verdict.CORRECT: 1.0, Verdict.WRONG: 0.0, Verdict.TIMEOUT: np.nan}
    expected = [rate[grade_by_question(q, "")] for q in assembly.pool.questions]
    assert len(set(map(str, expected))) == 3
    np.testing.assert_array_equal(grade, expected)
    entries = {name: tokens for name, tokens in ledger.to_dict().items() if tokens}
    assert set(entries) == {"screen/prefilled", "screen/generated"}
    assert entries["screen/prefilled"] == assembly.pool.lengths.sum()
    assert entries["screen/generated"] == 3 * POOL


def test_failures_of_the_grader_count_neither_way(params):
    """Of 4 rollouts some fail: successes are counted among the others."""
    graded = []

    def recording(question, response):
        graded.append((question.prompt, grade_by_response(question, response)))
        return graded[-1][1]

    assembly = assembly_of(Wants(grade=4), grade=recording, ends="half")
    grade = np.asarray(question_facts(assembly, params(assembly), Ledger()).grade)
    failures = set()
    for question, found in zip(assembly.pool.questions, grade, strict=True):
        own = [verdict for prompt, verdict in graded if prompt == question.prompt]
        failed = own.count(Verdict.TIMEOUT)
        rate = own.count(Verdict.CORRECT) / (4 - failed) if failed < 4 else np.nan
        assert found == pytest.approx(rate, nan_ok=True)
        failures.add(failed)
    assert len(failures) > 1


def test_a_coin_is_measured_as_training_would_see_it(params):
    noise = NoiseConfig(coin_flips=1.0)
    assembly = assembly_of(Wants(grade=6), noise=noise, ends="all")
    planted = plant(assembly.pool.questions, noise, 0)
    assembly = dataclasses.replace(assembly, pool=dataclasses.replace(assembly.pool, questions=planted))
    grade = np.asarray(question_facts(assembly, params(assembly), Ledger()).grade)
    assert grade.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(6 * POOL))
    assert len(set(grade.tolist())) > 2


def test_exact_rates_are_the_current_policys_at_every_step_and_in_no_budget(params):
    assembly, ledger = assembly_of(Wants(truth=True)), Ledger()
    state = started(assembly, params, ledger)
    assert np.isnan(state.curriculum.facts.grade).all()
    seen = []
    for step in range(3):
        state = with_policy(state, params(assembly, seed=step))
        clock = PhaseClock()
        state = refresh_facts(assembly, state, step, ledger, clock)
        assert set(clock.take()) == {"truth", "compile"}
        rates = exact_rates(assembly.evaluator, params(assembly, seed=step), assembly.pool_answers, Ledger())
        np.testing.assert_array_equal(state.curriculum.facts.grade, rates.astype(np.float32))
        seen.append(rates)
    assert not np.allclose(seen[0], seen[1])
    assert ledger.to_dict()["evaluation/scored"] > 0
    assert [training_total(ledger.to_dict(), kind) for kind in ("prefilled", "generated", "scored")] == [0, 0, 0]


# ------------------------------------------------------------------------------------------------------------ refusals
REFUSED = {
    "one category": (Wants(categories=4), lambda i: {"category": "a"}, "give the questions a field category"),
    "many categories": (Wants(categories=4), lambda i: {"category": str(i % 6)}, "raise --curriculum.categories"),
    "no levels": (Wants(levels=4), lambda i: {}, "take another"),
    "a level missing": (Wants(levels=4), lambda i: {"level": i % 4 if i else None}, "take another"),
    "a level too high": (Wants(levels=4), lambda i: {"level": i % 5}, "from 0 to 4 .* raise --curriculum.levels"),
    "a level below 0": (Wants(levels=4), lambda i: {"level": i % 3 - 1}, "from -1 to 1"),
}


def check_questions(wants, change=lambda i: {}, *, config=CONFIG, unique_answers=True):
    """Checks a config whose task gives the questions of the pool other fields."""

    @dataclasses.dataclass(frozen=True)
    class Changed(Chain):
        def build(self, seed):
            task = super().build(seed)
            train = [dataclasses.replace(q, **change(i)) for i, q in enumerate(task.splits["train"])]
            return task._replace(splits=task.splits | {"train": train}, unique_answers=unique_answers)

    changed = Changed(**dataclasses.asdict(config.task))
    return check(configuration.replace(config, task=changed, curriculum=Knowing(wants)))


@pytest.mark.parametrize("case", REFUSED)
def test_facts_that_the_data_cannot_give_are_refused_in_one_sentence(case):
    wants, change, says = REFUSED[case]
    with pytest.raises(UsageError, match=says) as caught:
        check_questions(wants, change)
    assert "\n" not in str(caught.value)
    assert ". " not in str(caught.value)


def test_exact_rates_need_unique_answers():
    check_questions(Wants(truth=True))
    with pytest.raises(UsageError, match="only a task with unique answers has: take another task"):
        check_questions(Wants(truth=True), unique_answers=False)


def test_exact_rates_need_a_tokenizer_of_single_characters():
    pieces = configuration.replace(CONFIG, tokenizer__kind="bpe", tokenizer__vocab_size=300)
    check_questions(Wants(), config=pieces)
    with pytest.raises(UsageError, match="only a tokenizer of single characters can tell: take --tokenizer"):
        check_questions(Wants(truth=True), config=pieces)


def test_what_the_data_has_is_not_refused():
    check_questions(Wants(categories=4, levels=3), lambda i: {"category": "ab"[i % 2], "level": i % 3})
    check_questions(Wants(categories=1, levels=3), lambda i: {"level": i % 3})


def test_an_impossible_curriculum_is_refused_before_the_fine_tuning(tmp_path):
    config = configuration.replace(CONFIG, curriculum=Knowing(Wants(categories=4)))
    assert config.sft.steps
    with pytest.raises(UsageError, match="chooses between categories"):
        run(config, Launch(output_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
