"""The choice of a token: truncation against NumPy, frequencies with a test that can fail, log-probs, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from lilo_jax.sampling.token_choice import TokenRule, choose_tokens, draw, truncate

VOCAB = 300  # three blocks of 128, the last one padded
RULES = [
    TokenRule(),
    TokenRule(temperature=0.7),
    TokenRule(temperature=1.5),
    TokenRule(top_k=5),
    TokenRule(top_p=0.8),
    TokenRule(min_p=0.35),
    TokenRule(temperature=1.2, top_p=0.9, top_k=8, min_p=0.05),
]
CHOOSE = {rule: jax.jit(functools.partial(choose_tokens, rule=rule)) for rule in [*RULES, TokenRule(0.0)]}
TRUNCATE = functools.cache(lambda rule: jax.jit(functools.partial(truncate, rule=rule)))


def truncated(probs: np.ndarray, rule: TokenRule) -> np.ndarray:
    """The definition, one row at a time: top_k, then top_p of what is left, then min_p; ties are kept whole."""
    out = np.zeros_like(probs, dtype=np.float64)
    for row, values in enumerate(probs.astype(np.float64)):
        kept = np.ones(len(values), bool)
        if rule.top_k:
            kept &= values >= np.sort(values)[::-1][: rule.top_k][-1]
        if rule.top_p < 1:
            kept_mass = values[kept].sum()
            for threshold in np.unique(values[kept])[::-1]:
                if values[values >= threshold].sum() >= rule.top_p * kept_mass:
                    break
            kept &= values >= threshold
        kept &= values >= rule.min_p * values.max()
        out[row] = np.where(kept, values, 0) / values[kept].sum()
    return out


def processed(logits: np.ndarray, rule: TokenRule) -> np.ndarray:
    return truncated(scipy.special.softmax(logits.astype(np.float64) / rule.temperature, axis=-1), rule)


def logits_of(rows: int, spread: float = 1.5, vocab: int = VOCAB) -> np.ndarray:
    return (spread * np.random.default_rng(rows).standard_normal((rows, vocab))).astype(np.float32)


def chi_square(tokens: np.ndarray, probs: np.ndarray) -> float:
    """The p-value of the observed frequencies; rare tokens share a cell; 0 if an impossible one occurs."""
    observed, expected = np.bincount(tokens, minlength=len(probs)), len(tokens) * probs
    if observed[expected == 0].any():
        return 0.0
    common = expected >= 5
    cells = [np.append(x[common], x[~common].sum()) for x in (observed, expected)]
    filled = cells[1] > 0
    assert filled.sum() >= 3
    return scipy.stats.chisquare(cells[0][filled], cells[1][filled]).pvalue


# -------------------------------------------------------------------------------------------------------- truncation
@pytest.mark.parametrize(
    "rule",
    [
        *[TokenRule(top_p=p) for p in (1e-6, 0.3, 0.5, 0.9, 0.999)],
        *[TokenRule(top_k=k) for k in (1, 3, 12, 500)],
        *[TokenRule(min_p=p) for p in (0.01, 0.3, 1.0)],
        TokenRule(top_k=4, top_p=0.7),
        TokenRule(top_k=6, min_p=0.3),
        TokenRule(top_p=0.9, min_p=0.2),
        TokenRule(top_k=6, top_p=0.9, min_p=0.1),
    ],
    ids=str,
)
def test_truncation_equals_the_definition_also_with_ties(rule):
    """Half of the rows have weights of few values (powers of two, summed without rounding), so ties abound."""
    rng = np.random.default_rng(0)
    tied = 2.0 ** -rng.integers(0, 5, (32, 12))
    tied[:, 0] = 1
    distinct = np.exp(-2 * rng.random((32, 12)))
    weights = np.concatenate([tied, distinct / distinct.max(axis=1, keepdims=True)]).astype(np.float32)
    found = np.asarray(TRUNCATE(rule)(weights), np.float64)
    expected = truncated(weights / weights.sum(axis=1, keepdims=True, dtype=np.float64), rule)
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_array_equal(found[found > 0], weights[found > 0])


def test_top_p_reaches_the_mass_and_keeps_ties_whole():
    """Worked by hand: probabilities 1/8, 1/2, 1/4, 1/8, and four equal ones."""
    weights = np.array([[0.25, 1, 0.5, 0.25], [1, 1, 1, 1]], np.float32)
    kept = lambda top_p: (np.asarray(TRUNCATE(TokenRule(top_p=top_p))(weights)) > 0).tolist()  # noqa: E731
    assert kept(0.5) == [[False, True, False, False], [True] * 4]
    assert kept(0.6) == [[False, True, True, False], [True] * 4]
    assert kept(0.75) == [[False, True, True, False], [True] * 4]
    assert kept(0.8) == [[True] * 4, [True] * 4]


def test_top_p_counts_the_mass_left_by_top_k_and_min_p_comes_last():
    """1/2, 1/4, 1/8, 1/16, 1/16: of the first two, 0.6 is reached by the first alone; of all, by the first two."""
    weights = np.array([[1, 0.5, 0.25, 0.125, 0.125]], np.float32)
    count = lambda rule: int((np.asarray(TRUNCATE(rule)(weights)) > 0).sum())  # noqa: E731
    assert count(TokenRule(top_p=0.6)) == 2
    assert count(TokenRule(top_p=0.6, top_k=2)) == 1
    assert count(TokenRule(top_k=4)) == 5
    assert count(TokenRule(top_k=3, min_p=0.5)) == 2


def test_what_is_kept_does_not_depend_on_the_order_of_the_tokens():
    weights = np.exp(logits_of(8) - logits_of(8).max(axis=1, keepdims=True))
    order = np.random.default_rng(1).permutation(VOCAB)
    for rule in RULES[3:]:
        np.testing.assert_array_equal(TRUNCATE(rule)(weights[:, order]), np.asarray(TRUNCATE(rule)(weights))[:, order])


def test_without_truncation_nothing_is_compared_or_sorted():
    weights = jnp.ones((2, 5))
    assert truncate(weights, TokenRule(temperature=0.3)) is weights
    assert "sort" not in str(jax.make_jaxpr(lambda w: truncate(w, TokenRule(top_p=0.9)))(weights))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"min_p": 2}],
    ids=str,
)
def test_a_rule_out_of_range_says_so(wrong):
    with pytest.raises(ValueError, match="temperature must be at least 0, top_p in"):
        TokenRule(**wrong)


# ------------------------------------------------------------------------------------------------------- frequencies
@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_frequencies_follow_the_rule_and_the_test_rejects_every_other_rule(rule):
    """20000 rows of the same logits: chi-square keeps the rule's distribution and rejects those of all other rules."""
    logits = logits_of(1)
    keys = jax.random.split(jax.random.key(11), 20_000)
    tokens = np.asarray(CHOOSE[rule](jnp.broadcast_to(logits, (len(keys), VOCAB)), keys)[0])
    p_values = {other: chi_square(tokens, processed(logits, other)[0]) for other in RULES}
    assert p_values.pop(rule) > 0.001
    assert max(p_values.values()) < 1e-6


def test_the_frequency_test_rejects_a_slightly_wrong_temperature():
    logits = logits_of(1)
    keys = jax.random.split(jax.random.key(11), 20_000)
    tokens = np.asarray(CHOOSE[RULES[0]](jnp.broadcast_to(logits, (len(keys), VOCAB)), keys)[0])
    assert chi_square(tokens, processed(logits, TokenRule(temperature=1.05))[0]) < 1e-3
    assert chi_square(tokens, np.roll(processed(logits, TokenRule())[0], 1)) < 1e-6


@pytest.mark.slow
def test_a_grid_of_uniform_numbers_gives_the_probabilities():
    """Without randomness: of 2^9 x 2^9 evenly spaced pairs, a token gets its probability, up to the grid's width."""
    weights = np.exp(logits_of(1))[0]
    weights[[0, 7, 130, VOCAB - 1]] = 0
    centres = (np.arange(512, dtype=np.float32) + 0.5) / 512
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    tokens = jax.jit(jax.vmap(lambda u: draw(jnp.asarray(weights)[None], u[None])[0]))(grid)
    counts = np.bincount(tokens, minlength=VOCAB)
    assert counts[weights == 0].sum() == 0
    assert counts.shape == (VOCAB,)
    np.testing.assert_allclose(counts / len(grid), weights / weights.sum(), atol=2 / 512 / 3)


def test_rare_tokens_are_drawn_at_their_own_rate():
    """A block of 128 tokens with 2^-20 of the mass: within it the draw is as fine as elsewhere."""
    weights = jnp.concatenate([jnp.ones((1, 128)), jnp.full((1, 128), 2.0**-20)], axis=1)
    inside = (np.arange(1280, dtype=np.float32) + 0.5) / 1280
    uniforms = np.stack([np.full_like(inside, 1 - 2**-22), inside], axis=1)
    tokens = draw(jnp.broadcast_to(weights, (1280, 256)), uniforms)
    assert np.bincount(tokens).tolist() == [0] * 128 + [10] * 128


def test_a_first_token_of_negligible_weight_is_not_drawn_for_the_smallest_uniform_number():
    weights = jnp.ones((1, VOCAB)).at[:, 0].set(1e-20).at[:, 128].set(1e-30)
    assert draw(weights, jnp.full((1, 2), 2.0**-24)).tolist() == [1]
    second = draw(weights, jnp.array([[0.5, 2.0**-24]]))
    assert second.tolist() == [129]


# ---------------------------------------------------------------------------------------------------------- log-probs
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("offset", [0.0, -3000.0])
def test_logprobs_equal_numpy(rule, offset):
    logits = logits_of(64) + np.float32(offset)
    tokens, logprobs, processed_logprobs = CHOOSE[rule](logits, jax.random.split(jax.random.key(3), 64))
    rows = np.arange(64)
    full = scipy.special.log_softmax(logits.astype(np.float64) / rule.temperature, axis=-1)
    np.testing.assert_allclose(logprobs, full[rows, tokens], atol=2e-6)
    np.testing.assert_allclose(processed_logprobs, np.log(processed(logits, rule)[rows, tokens]), atol=1e-5)
    if rule in RULES[:3]:
        np.testing.assert_array_equal(logprobs, processed_logprobs)


def test_greedy_takes_the_first_of_the_most_likely_and_reports_temperature_one():
    logits = logits_of(64)
    logits[0, [40, 200]] = 9
    tokens, logprobs, certain = CHOOSE[TokenRule(0.0)](logits, jax.random.split(jax.random.key(0), 64))
    assert tokens.tolist() == logits.argmax(axis=1).tolist()
    assert tokens[0] == 40
    np.testing.assert_allclose(logprobs, scipy.special.log_softmax(logits, axis=-1)[np.arange(64), tokens], atol=2e-6)
    assert certain.tolist() == [0.0] * 64


# ------------------------------------------------------------------------------------------------ allowed tokens only
@pytest.mark.parametrize("rule", [RULES[0], RULES[6], TokenRule(0.0)], ids=str)
def test_a_token_that_is_not_allowed_is_never_drawn_and_the_full_log_prob_stays(rule):
    """Even if it has nearly all the mass: the processed distribution is that of the allowed ones."""
    logits = logits_of(64)
    logits[:, 5] += 200
    allowed = np.ones((64, VOCAB), bool)
    allowed[::2, 5] = False  # as the end token of a row that is too short yet
    allowed[:, 250:] = False  # as ids that the tokenizer does not have
    keys = jax.random.split(jax.random.key(4), 64)
    tokens, logprobs, found = CHOOSE[rule](logits, keys, allowed=allowed)
    rows = np.arange(64)
    assert allowed[rows, tokens].all()
    assert np.all(tokens[1::2] == 5)
    full = scipy.special.log_softmax(logits.astype(np.float64) / (rule.temperature or 1), axis=-1)
    np.testing.assert_allclose(logprobs, full[rows, tokens], rtol=1e-6, atol=1e-5)
    if rule.temperature:
        expected = processed(np.where(allowed, logits, -np.inf), rule)[rows, tokens]
        np.testing.assert_allclose(found, np.log(expected), atol=1e-5)
        assert len(np.unique(tokens)) > 5
    else:
        assert tokens.tolist() == np.where(allowed, logits, -np.inf).argmax(axis=1).tolist()


def test_a_mask_for_all_rows_is_broadcast():
    logits, keys = logits_of(64), jax.random.split(jax.random.key(5), 64)
    allowed = (np.arange(VOCAB) < 20)[None]
    one, each = (CHOOSE[RULES[0]](logits, keys, allowed=a) for a in (allowed, np.tile(allowed, (64, 1))))
    np.testing.assert_array_equal(one, each)
    assert max(one[0]) < 20


# ------------------------------------------------------------------------------------------- independence and extremes
def test_a_row_depends_on_its_own_key_and_logits_alone():
    logits, keys = logits_of(64), jax.random.split(jax.random.key(7), 64)
    order = np.random.default_rng(0).permutation(64)
    for rule in (RULES[0], RULES[6]):
        together = CHOOSE[rule](logits, keys)
        for found, expected in zip(CHOOSE[rule](logits[order], keys[order]), together, strict=True):
            np.testing.assert_array_equal(found, np.asarray(expected)[order])
        others = np.where(np.arange(64)[:, None] == 2, logits, -logits)
        assert CHOOSE[rule](others, keys)[0][2] == together[0][2]
    for found, expected in zip(CHOOSE[RULES[0]](logits[2:3], keys[2:3]), CHOOSE[RULES[0]](logits, keys), strict=True):
        np.testing.assert_allclose(found[0], expected[2], atol=1e-6)


def test_equal_keys_draw_equal_tokens_and_other_keys_others():
    logits = np.tile(logits_of(1), (64, 1))
    same = CHOOSE[RULES[0]](logits, jnp.broadcast_to(jax.random.key(1), 64))[0]
    assert len(np.unique(same)) == 1
    assert len(np.unique(CHOOSE[RULES[0]](logits, jax.random.split(jax.random.key(1), 64))[0])) > 20


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_extreme_logits(rule):
    """All mass on one token; two of equal mass among -inf; all equal; large finite values; one possible token."""
    logits = np.full((64, VOCAB), -np.inf, np.float32)
    logits[:16] = 0
    logits[:16, 299] = 1e4
    logits[16:32, [3, 131]] = 5
    logits[32:48] = -1e30
    logits[48:56] = 3e38
    logits[56:, 128] = -7
    tokens, *both = (np.asarray(x) for x in CHOOSE[rule](logits, jax.random.split(jax.random.key(6), 64)))
    assert np.all(tokens[:16] == 299)
    assert set(tokens[16:32]) == {3, 131}
    assert np.all((tokens >= 0) & (tokens < VOCAB))
    assert len(np.unique(tokens[32:48])) > 8
    assert np.all(tokens[56:] == 128)
    certain = [0.0, np.log(0.5), -np.log(VOCAB), -np.log(VOCAB), 0.0]
    for logprobs in both:
        np.testing.assert_allclose(logprobs, np.repeat(certain, [16, 16, 16, 8, 8]), atol=1e-5)


@pytest.mark.parametrize("uniform", [2**-24, 0.5, 1 - 2**-23, 1 - 2**-24])
def test_no_token_of_weight_zero_is_drawn_at_the_ends_of_the_unit_interval(uniform):
    """Sparse weights of very different sizes, zeros at both ends of blocks and of the vocabulary."""
    rng = np.random.default_rng(0)
    weights = (rng.random((512, 1000)) * 10.0 ** rng.uniform(-8, 0, (512, 1000))).astype(np.float32)
    weights[rng.random((512, 1000)) < 0.97] = 0
    weights[:, 500] = 1
    tokens = np.asarray(jax.jit(draw)(weights, np.full((512, 2), uniform, np.float32)))
    assert np.all(weights[np.arange(512), tokens] > 0)


@pytest.mark.parametrize("rule", [RULES[0], RULES[6], TokenRule(0.0)], ids=str)
def test_rows_without_a_distribution_have_a_nan_log_prob_and_leave_the_others_alone(rule):
    logits, keys = logits_of(64), jax.random.split(jax.random.key(8), 64)
    expected = CHOOSE[rule](logits, keys)
    logits[1, 17] = np.nan
    logits[3, 290] = np.inf
    logits[4] = -np.inf
    tokens, *both = CHOOSE[rule](logits, keys)
    assert np.all((tokens >= 0) & (tokens < VOCAB))
    assert np.flatnonzero(np.isnan(both[0])).tolist() == [1, 3, 4]
    sound = np.setdiff1d(np.arange(64), [1, 3, 4])
    for found, want in zip((tokens, *both), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found)[sound], np.asarray(want)[sound])
    none_allowed = CHOOSE[rule](logits_of(64), keys, allowed=np.zeros((64, VOCAB), bool))
    assert np.isnan(none_allowed[2]).all()
    assert np.isfinite(none_allowed[1]).all()
