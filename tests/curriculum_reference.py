"""The rules of the curricula's papers in plain Python: loops over the steps of a record, no package imported.

A record is a list of steps; a step is a list of groups (question, successes, attempts), attempts above 0.
"""

import itertools
import math

import numpy as np


def by_question(groups):
    """{question: (successes, attempts)}, a question's groups added up."""
    found = {}
    for question, successes, attempts in groups:
        s, n = found.get(question, (0, 0))
        found[question] = (s + successes, n + attempts)
    return found


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# ----------------------------------------------------------------------------------------------------------- history
def frequencies(record, pool, unseen):
    totals = by_question([group for step in record for group in step])
    return [totals[i][0] / totals[i][1] if i in totals else unseen for i in range(pool)]


def last_rates(record, pool, unseen):
    rates = [unseen] * pool
    for step in record:
        for i, (s, n) in by_question(step).items():
            rates[i] = s / n
    return rates


def fading_counts(record, pool, decay, prior):
    """A <- decay a + (1 - decay) a_0 + s for every question at every step (MoPPS); b likewise."""
    a, b = [prior] * pool, [prior] * pool
    for step in record:
        seen = by_question(step)
        for i in range(pool):
            s, n = seen.get(i, (0, 0))
            a[i] = decay * a[i] + (1 - decay) * prior + s
            b[i] = decay * b[i] + (1 - decay) * prior + n - s
    return a, b


def logistic_mode(features, groups, decay, precision):
    """Newton's method to convergence for the penalised log likelihood; groups are (question, s, n, age)."""
    x = np.array([features[i] for i, *_ in groups], np.float64).reshape(len(groups), -1)
    weight = np.array([n * decay**age for _, _, n, age in groups], np.float64)
    rate = np.array([s / n for _, s, n, _ in groups], np.float64)
    w = np.zeros(len(features[0]))

    def hessian(w):
        p = 1 / (1 + np.exp(-x @ w))
        return (x.T * (weight * p * (1 - p))) @ x + np.diag(np.broadcast_to(precision, len(w)))

    for _ in range(200):
        gradient = x.T @ (weight * (1 / (1 + np.exp(-x @ w)) - rate)) + precision * w
        w = w - 0.5 * np.linalg.solve(hessian(w), gradient)
    return w, np.linalg.inv(hessian(w))


def trap_evidence(record, pool, predictions, strength, fade):
    """Log-likelihoods of a coin and of an unanswerable question over a clean one; predictions of before each step."""
    evidence, seen = [[0.0] * pool, [0.0] * pool], [0] * pool

    def log_beta(a, b):
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    for step, groups in enumerate(record):
        for i in {i for i, *_ in groups}:
            for kind in evidence:
                kind[i] *= fade ** (step - seen[i])
            seen[i] = step
        for i, s, n in groups:
            m = min(max(predictions[step][i], 0.02), 0.98)
            a, b = strength * m, strength * (1 - m)
            clean = log_beta(a + s, b + n - s) - log_beta(a, b)
            evidence[0][i] += n * math.log(0.5) - clean
            evidence[1][i] += s * math.log(0.01) + (n - s) * math.log(0.99) - clean
    return evidence


def diverse(weights, rows, count):
    """Greedily the set of largest sum of log weights + log determinant of cosines."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = []
    for _ in range(count):

        def worth(i):
            some = rows[[*chosen, i]]
            return math.log(weights[i]) + np.linalg.slogdet(some @ some.T)[1]

        chosen.append(max((i for i in range(len(weights)) if i not in chosen), key=worth))
    return chosen


def blended_counts(record, pool, predictions, forget, share, samples):
    """BOTS: explicit counts where there are some, else share x samples predicted ones; predictions one list a step."""
    a, b = [1.0] * pool, [1.0] * pool
    for step, predicted in zip(record, predictions, strict=True):
        seen = by_question(step)
        for i in range(pool):
            s, f = (0, 0) if i not in seen else (seen[i][0], seen[i][1] - seen[i][0])
            ps, pf = (s, f) if i in seen else (samples * predicted[i], samples * (1 - predicted[i]))
            a[i] = (1 - forget) * a[i] + forget + (1 - share) * s + share * ps
            b[i] = (1 - forget) * b[i] + forget + (1 - share) * f + share * pf
    return a, b


def greso(record, pool, easy_target, hard_target):
    """Run lengths of easy and of hard visits, and the two probabilities."""
    easy, hard, p = [0] * pool, [0] * pool, [0.5, 0.5]
    for step in record:
        for i, (s, n) in by_question(step).items():
            easy[i] = easy[i] + 1 if s == n else 0
            hard[i] = hard[i] + 1 if s == 0 else 0
        shares = [sum(s == n for _, s, n in step) / len(step), sum(s == 0 for _, s, n in step) / len(step)]
        for x, (share, target) in enumerate(zip(shares, (easy_target, hard_target), strict=True)):
            p[x] = min(max(p[x] + (-0.01 if share > target else 0.01), 0.05), 0.95)
    return easy, hard, p


def skip_probability(easy, hard, p, explore):
    return [1 - max(p[0] ** e if e else p[1] ** h, explore) for e, h in zip(easy, hard, strict=True)]


def cdas(record, pool):
    difficulty, visits, ability = [0.0] * pool, [0] * pool, 0.0
    for step in record:
        change = 0.0
        for i, (s, n) in by_question(step).items():
            count = visits[i] + 2
            new = (count - 1) / count * difficulty[i] + (sigmoid(ability - difficulty[i]) - s / n) / count
            change += new - difficulty[i]
            difficulty[i], visits[i] = new, visits[i] + 1
        ability -= change / pool
    return difficulty, ability


def cdas_choice(difficulty, ability, count):
    """Half nearest from below, half nearest from above; a side that is short is filled up from the other."""
    below = sorted((i for i, d in enumerate(difficulty) if d <= ability), key=lambda i: -difficulty[i])
    above = sorted((i for i, d in enumerate(difficulty) if d > ability), key=lambda i: difficulty[i])
    low, high = below[: count // 2], above[: count // 2]
    high += above[len(high) : len(high) + count // 2 - len(low)]
    low += below[len(low) : len(low) + count - len(low) - len(high)]
    return set(low + high)


def adarft_target(record, start, pace, sharpness, rate):
    target = start
    for step in record:
        mean = sum(s for _, s, _ in step) / sum(n for *_, n in step)
        target = min(max(target + pace * math.tanh(sharpness * (mean - rate)), 0), 100)
    return target


def dps(record, pool, prior, decay):
    """Probability of each question to be partly solved next: a filter with Dirichlet counts of moves per question."""
    counts = [np.full((3, 3), prior) for _ in range(pool)]
    before, ahead = ([np.ones(3) / 3 for _ in range(pool)] for _ in range(2))
    for step in record:
        seen = by_question(step)
        for i in range(pool):
            moves = counts[i] / counts[i].sum(axis=0)
            new, learnt = ahead[i], np.zeros((3, 3))
            if i in seen:
                s, n = seen[i]
                new = np.eye(3)[0 if s == 0 else 2 if s == n else 1]
                joint = np.array([[new[to] * before[i][at] * moves[to, at] for at in range(3)] for to in range(3)])
                learnt = joint / joint.sum()
            counts[i] = decay * counts[i] + (1 - decay) * prior + learnt
            before[i], ahead[i] = new, (counts[i] / counts[i].sum(axis=0)) @ new
    return [float(a[1]) for a in ahead]


def pool_weights(rates, hard, normal, weights, unseen):
    def weight(rate):
        if rate is None:
            return unseen
        return weights[0] if rate <= hard else weights[1] if rate <= normal else weights[2]

    return [weight(rate) for rate in rates]


def vcrl_bank(record, pool, threshold, momentum, largest):
    bank = [None] * pool
    for step in record:
        for i, (s, n) in by_question(step).items():
            share = s / n * (1 - s / n) / largest
            moved = share if bank[i] is None else momentum * bank[i] + (1 - momentum) * share
            bank[i] = moved if moved >= threshold else None
    return bank


def lze_history(record, pool, rate):
    """The first rate of each question and its moving average, which starts there."""
    first, average = [None] * pool, [None] * pool
    for step in record:
        for i, (s, n) in by_question(step).items():
            first[i] = s / n if first[i] is None else first[i]
            average[i] = s / n if average[i] is None else (1 - rate) * average[i] + rate * s / n
    return first, average


def lze_energies(places, rates, first, average, floor, momentum):
    found = []
    for i, p in zip(places, rates, strict=True):
        p0, m = (p if x[i] is None else x[i] for x in (first, average))
        found.append(max(1 - p0, floor) * 4 * p * (1 - p) * (1 + momentum * min(2 * abs(p - m), 1)))
    return found


def review_queue(record, pool):
    """The step at which a question was last solved, if it was not rolled out and missed since; -1 outside."""
    queue = [-1] * pool
    for t, step in enumerate(record):
        for i, (s, n) in by_question(step).items():
            queue[i] = t if s == n else -1
    return queue


def plr(worths, last_seen, now, beta, staleness, replay, order):
    """Probabilities; `order` breaks ties between equal worths: the place of each question."""
    seen = [i for i, t in enumerate(last_seen) if t >= 0]
    new = [i for i, t in enumerate(last_seen) if t < 0]
    scored = sorted((i for i, s in enumerate(worths) if s is not None), key=lambda i: (-worths[i], order[i]))
    by_score = {i: (rank + 1) ** (-1 / beta) for rank, i in enumerate(scored)}
    by_age = {i: now - last_seen[i] for i in seen}
    replay = replay if seen and new else float(bool(seen))
    result = [0.0] * len(last_seen)
    for i in range(len(last_seen)):
        share = (1 - staleness) * by_score.get(i, 0) / sum(by_score.values()) if by_score else 0
        share += staleness * by_age.get(i, 0) / max(sum(by_age.values()), 1)
        result[i] = replay * share + (1 - replay) * ((i in new) / max(len(new), 1))
    return result


# -------------------------------------------------------------------------------------------------------- categories
def sec(updates, categories, rate):
    """Updates are lists of (category, mean |advantage|) a step."""
    values = [0.0] * categories
    for update in updates:
        for c in range(categories):
            sizes = [size for category, size in update if category == c]
            if sizes:
                values[c] = (1 - rate) * values[c] + rate * sum(sizes) / len(sizes)
    return values


def dump(updates, categories, window, samples):
    seen = [[] for _ in range(categories)]
    for update in updates:
        for category, size in update:
            seen[category].append(size)
    total = max(samples * sum(map(len, seen)), 1)
    means = [sum(s[-window:]) / len(s[-window:]) if s else 0.0 for s in seen]
    return [m + math.sqrt(2 * math.log(total + 1) / (samples * len(s) + 1)) for m, s in zip(means, seen, strict=True)]


def softmax(logits):
    weights = [math.exp(x - max(logits)) for x in logits]
    return [w / sum(weights) for w in weights]


def rlve(record, category, level, categories, threshold, least):
    """Highest level of each category that is asked, counted from its lowest in the pool."""
    height, shown = [0] * categories, [[] for _ in range(categories)]
    held = [[level[i] for i in range(len(level)) if category[i] == c] or [0] for c in range(categories)]
    for step in record:
        for i, s, n in step:
            if level[i] == min(held[category[i]]) + height[category[i]]:
                shown[category[i]].append((s, n))
        for c in range(categories):
            if len(shown[c]) >= least:
                if sum(s for s, _ in shown[c]) / sum(n for _, n in shown[c]) >= threshold:
                    height[c] = min(height[c] + 1, max(held[c]) - min(held[c]))
                shown[c] = []
    return height


def e2h_cosine(progress, levels):
    easy = 0.5 * (1 + math.cos(math.pi * progress))
    weights = [easy * (levels - k) + (1 - easy) * (k + 1) for k in range(levels)]
    return [w / sum(weights) for w in weights]


def e2h_gaussian(progress, levels, power=0.5, width=0.5):
    centre = progress**power * (levels - 1)
    weights = [math.exp(-((centre - k) ** 2) / (2 * width**2)) for k in range(levels)]
    return [w / sum(weights) for w in weights]


# --------------------------------------------------------------------------------------------------------- allocation
def knapsack(rates, budget, least, most):
    """The best sum of (1 - p^n - (1 - p)^n) p (1 - p)^2 over all ways to spend the budget, by dynamic programming."""

    def value(p, n):
        return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2

    best = {0: 0.0}
    for p in rates:
        options = {}
        for spent, total in best.items():
            for n in range(least, most + 1):
                if spent + n <= budget:
                    options[spent + n] = max(options.get(spent + n, -1.0), total + value(p, n))
        best = options
    return best[budget], value


def plackett_luce_inclusion(weights, k):
    """Probability of each entry to be among k drawn without replacement in proportion to the weights that are left."""
    included = [0.0] * len(weights)
    for order in itertools.permutations(range(len(weights)), k):
        probability, left = 1.0, sum(weights)
        for i in order:
            probability *= weights[i] / left
            left -= weights[i]
        for i in order:
            included[i] += probability
    return included
