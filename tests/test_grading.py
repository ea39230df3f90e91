"""The graders on a golden corpus, on re-formatted answers, on fuzzed strings; extraction and notation by hand."""

import fractions
import json
import pathlib
import random
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import gsm8k_solutions
from lilo_jax import cli
from lilo_jax.errors import UsageError
from lilo_jax.grading import GRADERS, grader
from lilo_jax.grading.answers import Expression, Interval, Matrix, Named, Number, Set, Time, Tuple, Union, Words
from lilo_jax.grading.clock import same_time
from lilo_jax.grading.extraction import complete, extract, gold_answer
from lilo_jax.grading.notation import compact, normalise
from lilo_jax.grading.probing import probe
from lilo_jax.grading.reading import read
from lilo_jax.grading.sums import holds
from lilo_jax.grading.symbolic import equivalent, readable
from lilo_jax.grading.workers import GradingWorkers, judge_all
from lilo_jax.questions import Question, Verdict

GOLDEN = sorted((pathlib.Path(__file__).parent / "golden").glob("*.jsonl"))
CORPUS = [
    (f"{file.stem}:{number}", json.loads(line))
    for file in GOLDEN
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
]
REQUIRED = """
    nested_boxes multiple_boxes fractions mixed_numbers percent units currency thousands scientific intervals tuples
    sets matrices radicals trigonometry polynomials equations inequalities text choices plus_minus degrees unicode empty
    refusal code hostile tiny_values worked_equations thinking repeating_decimals lines times labels notation
    unevaluated
"""
CATEGORIES = REQUIRED.split()


def asked(row: dict) -> tuple[Question, str]:
    return Question("", row["gold"], text=row.get("question", "")), row["response"]


def verdict_of(name: str, gold: str, response: str, text: str = "") -> str:
    return GRADERS[name](Question("", gold, text=text), response).value


# ---------------------------------------------------------------------------------------------------------- the corpus
def test_the_corpus_has_its_categories_and_size():
    assert len(CORPUS) >= 400
    names = [place.split(":")[0] for place, _ in CORPUS]
    assert set(CATEGORIES) <= set(names)
    assert min(names.count(name) for name in CATEGORIES) >= 15
    assert len({(row["gold"], row["response"], row.get("question")) for _, row in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "math_verify" else name for name in GRADERS]
)
def test_every_case_has_its_expected_verdict(name):
    # What math-verify makes of hostile answers is mostly a matter of its deadline.
    cases = [c for c in CORPUS if name != "math_verify" or not c[0].startswith("hostile")]
    with GradingWorkers(count=2) as grading:
        found = judge_all(grading, GRADERS[name], [asked(row) for _, row in cases])
        counts = grading.take_counts()
    wrong = [
        (place, row["gold"], row["response"][-60:], judgement)
        for (place, row), judgement in zip(cases, found, strict=True)
        if judgement.verdict.value != row[name]
    ]
    assert not wrong
    assert counts.timeouts == sum(row[name] == "timeout" for _, row in cases)


KNOWN = [
    ("5", r"\boxed{4}, wait, \boxed{5}", "correct"),
    ("5", r"\boxed{5}, wait, \boxed{4}", "wrong"),
    (r"50\%", r"\boxed{0.5}", "correct"),
    (r"50\%", r"\boxed{50}", "wrong"),
    ("50", r"\boxed{50\%}", "wrong"),
    ("(1,2)", r"\boxed{\{1,2\}}", "wrong"),
    (r"\{1,2\}", r"\boxed{(1,2)}", "wrong"),
    (r"[0,1)", r"\boxed{0 \le x < 1}", "correct"),
    ("0<=x<1", "[0,1)", "correct"),
    ("100000", "1e5", "correct"),
    ("1e5", r"\boxed{100{,}000}", "correct"),
    ("-5", r"\boxed{- 5}", "correct"),
    ("-5", "\\boxed{− 5}", "correct"),
    (r"\frac{1}{3}", r"\boxed{0.333}", "wrong"),
    ("2ab", r"\boxed{2}", "wrong"),  # math-verify takes the letters for a unit
]


@pytest.mark.parametrize(("gold", "response", "expected"), KNOWN)
def test_known_failures_of_math_verify_are_right_under_default(gold, response, expected):
    assert verdict_of("default", gold, response) == expected


def test_a_question_that_asks_for_a_percentage_gives_the_unit():
    text = "What percent of the marbles are red?"
    assert verdict_of("default", r"40\%", "40", text) == "correct"
    assert verdict_of("default", "40", r"40\%", text) == "correct"
    assert verdict_of("default", r"40\%", "0.4", text) == "wrong"
    assert verdict_of("default", r"40\%", "40", "What is 50 percent of 80 %?") == "wrong"


def test_an_unknown_grader_is_named():
    with pytest.raises(Exception, match="did you mean 'exact'"):
        grader("exat")


# ----------------------------------------------------------------------------------------------- extraction, notation
@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"a \boxed{1} b \boxed{2} c", ("2", "boxed")),
        (r"\boxed{\frac{1}{2}} and \boxed{3", (r"\frac{1}{2}", "boxed")),
        (r"\boxed{\{1,2\}}", (r"\{1,2\}", "boxed")),
        (r"\boxed 7", ("7", "boxed")),
        ("<answer> 5 </answer> <answer>6</answer>", ("6", "tags")),
        ("</think> <answer> 5 ", ("5", "tags")),
        ("x\n#### 1,234\n", ("1,234", "hashes")),
        ("The answer is 3.5. I checked it.", ("3.5", "phrase")),
        ("**Answer:** $x = 3$.", ("$x = 3$", "phrase")),
        ("The answer is that the number of apples in both of the baskets is 12.", ("12", "phrase")),
        ("x=3", ("x=3", "whole")),
        ("New York", ("New York", "whole")),
        ("So there are 24 apples left over in it.", ("24", "last")),
        (r"It follows that $x=5$ where we used 3 rules, so $y=7$ holds here.", ("y=7", "last")),
        (r"We multiply and get \frac{3}{4} of the whole cake here.", (r"\frac{3}{4}", "last")),
        (r"<think> \boxed{3} </think> \boxed{4}", ("4", "boxed")),
        (r"\boxed{3} </think> The answer is 4.", ("4", "phrase")),
        ("<think> 3", None),
        (r"\boxed{3} <think> or \boxed{4}", ("3", "boxed")),
        (r"\boxed{\text{<think>}}", (r"\text{<think>}", "boxed")),
        ("<ANSWER>5</Answer>", ("5", "tags")),
        ("The train that we wait for leaves the station at 10:30 p.m. sharp", ("10:30 p.m", "last")),
        (r"We get \boxed{} in the end 5.", None),
        ("", None),
        ("I do not know how to solve this.", None),
    ],
)
def test_extraction_by_rule(response, expected):
    assert extract(response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"It is \boxed{12}, since 12 = 3 *", r"It is \boxed{12}"),
        (r"It is \boxed{3}, no, \boxed{4}, no, \boxed{5", r"It is \boxed{3}, no, \boxed{4}"),
        (r"\boxed{\frac{1}{2", ""),
        (r"\boxed 7 and", ""),
        ("<answer>5</answer> since", "<answer>5</answer>"),
        ("<answer>5</ans", ""),
        ("5</answer> since", ""),
        ("3 + 4 = 7\n#### 7\nQ: Tom", "3 + 4 = 7\n#### 7\n"),
        ("3 + 4 = 7\n#### 7", ""),
        ("####\n7", ""),
        ("The answer is 7. The next one is", "The answer is 7."),
        ("The answer is 3.", ""),
        ("The answer is 3.5 apples.\n", "The answer is 3.5 apples."),
        ("The answer is 7.\n\nThe answer is 1", "The answer is 7."),
        ("The answer is\n7", ""),
        ("So there are 24", ""),
        ("24", ""),
        (r"<think> \boxed{3} and", ""),
        (r"<think> \boxed{3} </think> so \boxed{4} is", r" so \boxed{4}"),
        ("", ""),
    ],
)
def test_of_a_response_that_was_cut_off_the_complete_answer_counts(response, expected):
    assert complete(response) == expected


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "5"),
        (r"so \boxed{5}", "5"),
        ("2+3=5\n#### 5", "5"),
        ("the answer is 5", "the answer is 5"),
        (r"<think> \boxed{4} </think> \boxed{5}", "5"),
        ("<think>", "<think>"),
        (" x=3 ", "x=3"),
    ],
)
def test_a_gold_is_a_bare_answer_or_a_solution(gold, answer):
    assert gold_answer(gold) == answer


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1,234.5", Number),
        ("-3/4", Number),
        (r"2\frac{1}{2}", Number),
        (r"1.5 \times 10^{-3}", Number),
        (r"50\%", Number),
        ("12 apples", Number),
        ("12 (twelve)", Number),
        ("8:30", Time),
        ("8 a.m.", Time),
        ("28:30", Expression),
        ("8:3", Expression),
        ("Area: 5", Named),
        ("2+3=5", Named),
        ("2+3=6", Expression),
        ("x=3", Named),
        (r"x \ne 3", Union),
        (r"\sqrt{2}", Expression),
        ("Paris", Words),
        ("(B)", Words),
        ("(1, 2)", Tuple),
        ("[1, 2)", Interval),
        (r"(-\infty, 3]", Interval),
        (r"\{1, 2\}", Set),
        ("1, 2", Set),
        (r"x<1 \text{ or } x>2", Union),
        (r"\pm 3", Set),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", Matrix),
    ],
)
def test_what_an_answer_is(text, kind):
    assert isinstance(read(text), kind)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        ("−5", "-5"),
        ("½", r"\frac{1}{2}"),
        ("x²", "x^2"),
        ("√2", r"\sqrt{2}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \frac{\pi}{2})"),
        (r"$5$", "5"),
        (r"\text{Paris}.", "Paris"),
        ("１２", "12"),
        (r"x \leqslant 3", r"x\le 3"),
    ],
)
def test_spellings_become_one(one, other):
    assert compact(normalise(one)) == compact(normalise(other))


@pytest.mark.parametrize(
    ("text", "numerator", "denominator"),
    [
        (r"0.\overline{3}", 1, 3),
        (r"0.\overline{142857}", 1, 7),
        (r"0.1\overline{6}", 1, 6),
        (r"0.\bar 3", 1, 3),
        (r".\dot3", 1, 3),
        (r"0.1\dot{4}2857\dot{1}", 1, 7),  # 0.1 428571 428571 ...
        ("0.(27)", 3, 11),
        ("-2.(3)", -7, 3),
        ("0.3\u0305", 1, 3),
        (r"1,000.\overline{9}", 1001, 1),
        (r"0.\overline{0}", 0, 1),
        (r"50.\overline{0}\%", 1, 2),
    ],
)
def test_repeating_decimals_are_fractions(text, numerator, denominator):
    assert read(text).value == fractions.Fraction(numerator, denominator)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("8:30 a.m.", "8:30 AM", True),
        ("8:30 a.m.", "8:30 p.m.", False),
        ("8:30", "8:30 p.m.", True),
        ("8:30", "20:30", False),
        ("20:30", "8:30 p.m.", True),
        ("20:30", "8:30 a.m.", False),
        ("12:10 a.m.", "0:10", True),
        ("12:10 p.m.", "0:10", False),
        ("12:10", "12:10 a.m.", True),
        ("12 noon", "12:00 p.m.", True),
        ("midnight", "12 a.m.", True),
        ("8:30:15 a.m.", "8:30 a.m.", False),
        ("8:30:15 a.m.", "8:30:15", True),
    ],
)
def test_times_of_day(one, other, same):
    assert same_time(read(one), read(other)) is same
    assert same_time(read(other), read(one)) is same


@pytest.mark.parametrize(
    ("equation", "true"),
    [
        ("12+30=42", True),
        ("12+30=41", False),
        (r"\frac{1}{2}+\frac{1}{3}=\frac{5}{6}", True),
        ("6 x 7 = 42", True),
        ("2 apples + 3 apples = 5 apples", True),
        (r"20\percent \cdot 50=10", True),
        ("2/3=0.67", True),
        ("2/3=0.66", False),
        ("2/3=1", False),
        ("x+1=3", False),
        ("1+1=2=2", True),
        ("1+1=2=3", False),
        ("9^{9^{9^9}}=1", False),
        ("=", False),
        ("(=(", False),
    ],
)
def test_whether_an_equation_of_numbers_holds(equation, true):
    assert holds(equation.split("=")) is true


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [
        ("2", "18 * 1 = 18 cups = 2 cups", False),
        ("45", "9 = 10 * 2 / (10 / (3 + 1)) = 12 * 26 = 45", False),
        ("4", "12 + 4 * 0.10 = 2 * 2 = 4 bags", False),
        ("12", "4 * 3 = 12 = 12 cups", True),
        ("36", "3 * 1 feet = 3 feet = 36 inches", True),  # of other units: nothing is converted
        ("30", "5 * number of children = 5 x 6 = 30", True),
        ("30", "5 x 6 = 3x = 30", True),
        ("0.67", "2/3 = 0.667 = 0.67", True),
        ("0.66", "2/3 = 0.667 = 0.66", False),
    ],
)
def test_sides_that_contradict_each_other_are_no_answer(gold, response, right):
    assert (grader("default")(Question("", gold), response) is Verdict.CORRECT) is right


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [
        ("36", "4 * 9 = 36 (1 child is 1 queen)", True),
        ("8", "6 (Slate) + 2 = 8 (man)", True),
        ("10", "6 (Ace) + 4 (Ace) = 10 Apples", True),
        ("6", "2 (3 apples) = 6", True),
        ("30", "30 (finitely many)", True),
        ("36", "4 * 8 = 36 (in all)", False),
        ("36", "4 * 9 = 36 (not right)", False),
        ("36", "36 (less 5)", False),
        ("2", "2 (3 apples)", False),  # a product
    ],
)
def test_words_in_brackets_behind_a_value_are_remarks(gold, response, right):
    assert (grader("default")(Question("", gold), response) is Verdict.CORRECT) is right


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [
        ("2:3", "56 : 84", False),
        ("2:3", "56:84", False),
        ("2:3", "2 : 3", True),
        ("2:3", "4:6", True),  # not what the question says
        ("56:84", "56 : 84", True),
    ],
)
def test_a_ratio_of_the_questions_own_numbers_is_yet_to_be_reduced(gold, response, right):
    text = "Gabriel scores 56 in Math and 84 in Science. Find the ratio of his scores in Math to Science."
    assert (grader("default")(Question("", gold, text=text), response) is Verdict.CORRECT) is right


@pytest.mark.parametrize("gold", ["120", "x = 3", "8:30", "[1, 2)", "Total: 5 * 6 = 30", "yes", "x \\ne 2"])
def test_a_label_may_stand_before_an_equation(gold):
    verdict = grader("default")(Question("", gold), "convert: 10 * 12 = 120")
    assert (verdict is Verdict.CORRECT) is (gold == "120")


def test_numbers_are_exact():
    assert read("0.1").value == fractions.Fraction(1, 10)
    assert read("1e-3").value == fractions.Fraction(1, 1000)
    assert read("12.5%").value == fractions.Fraction(1, 8)
    assert verdict_of("default", "0.1", "0.1000000000000000000000001") == "wrong"


# ------------------------------------------------------------------------------------------------------------- algebra
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\sin^2 x+\cos^2 x", "1", True),
        (r"\sqrt{2}", r"\frac{141421356237309504880168872420969807}{100000000000000000000000000000000000}", False),
        ("|x|", "x", False),
        ("|x|", r"\sqrt{x^2}", True),
        (r"\log_2 8", "3", True),
        (r"e^{i\pi}", "-1", True),
        (r"\sqrt{-4}", "2i", True),
        ("x^2", "x^3", False),
        (r"\ln(xy)", r"\ln x+\ln y", None),  # a question of domain
        ("10^{100}", "10^{100}+1", None),  # beyond the digits
        ("2^{-97}", "2^{-96}", False),
        ("2^{-97}", r"\frac{3}{3\cdot 2^{97}}", True),
        ("e^{-200}x", "e^{-201}x", False),
        ("2^{-2000}", "4^{-1000}", True),
        (r"\sin(\pi)", "0", True),  # but for rounding
        (r"\sin(\pi)", "2^{-250}", False),
        ("(1+10^{-80})-1", "10^{-80}", True),  # more digits than are compared cancel
        ("2^{-20000}", "2^{-20001}", None),  # too small to compute
        ("9^{9^{9^9}}", "1", None),
        ("1/2x", "0.5x", None),  # read in two ways
        (r"\sum_{n=1}^{10} n", "55", None),  # not read
        ("f(x)", "fx", None),
        (r"\frac{dy}{dx}", r"\frac{y}{x}", None),
    ],
)
def test_values_at_points(one, other, same):
    assert probe(one, other) is same
    assert probe(other, one) is same


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_probing_agrees_with_sympy_on_random_polynomials(seed):
    import sympy

    rng, x, y = random.Random(seed), *sympy.symbols("x y")
    factors = [rng.randint(-5, 5) * x + rng.randint(-5, 5) * y + rng.randint(-9, 9) for _ in range(rng.randint(1, 3))]
    product = sympy.prod(factors)
    other = sympy.expand(product) + rng.choice([0, 0, 1, x - y])
    latex = [re.sub(r"\\left|\\right", "", sympy.latex(e)) for e in (product, other)]
    assert probe(*latex) is (sympy.expand(product - other) == 0)


BINARY = [r"(%s+%s)", r"(%s-%s)", r"%s \cdot %s", r"\frac{%s}{%s}", r"(%s)^{%s}", r"\log_{%s}(%s)", r"\binom{%s}{%s}"]
UNARY = [
    r"\sqrt{%s}",
    r"\sqrt[3]{%s}",
    r"\sin(%s)",
    r"\tan(%s)",
    r"\ln(%s)",
    r"\arctan(%s)",
    "|%s|",
    "(%s)!",
    r"\exp(%s)",
]


def random_expression(rng: random.Random, depth: int) -> str:
    if not depth or rng.random() < 0.2:
        return rng.choice(["x", "y", "2", "10", "0.5", r"\pi", "e", "i", "17", "99999", "x_1"])
    if rng.random() < 0.5:
        return rng.choice(UNARY) % random_expression(rng, depth - 1)
    return rng.choice(BINARY) % (random_expression(rng, depth - 1), random_expression(rng, depth - 1))


def test_no_expression_differs_from_itself_or_takes_long():
    rng, found = random.Random(0), []
    for _ in range(3000):
        one, other = (random_expression(rng, rng.randint(1, 5)) for _ in range(2))
        started = time.thread_time()
        assert probe(one, one) is not False
        assert probe(one, other) is probe(other, one)
        assert time.thread_time() - started < 3
        found.append(probe(one, one))
    assert found.count(True) > 1000


def test_what_is_not_tame_is_not_parsed():
    for text in ("9^{9^{9^9}}", "(" * 30 + "1" + ")" * 30, "(10^9)!", "1" * 400, "__import__", "x@y", "{" * 3):
        assert not readable(text)
        assert not equivalent(text, text)
    assert not equivalent("2^{-9999}", "2^{-9998}")
    assert equivalent("2^{-9998}", "4^{-4999}")
    assert equivalent("2x+y=3", "4x+2y=6")
    assert not equivalent("2x+y=3", "4x+2y=7")
    assert equivalent(r"\sum_{n=1}^{10} n", "55")
    assert not equivalent(r"\frac{dx}{dt}=kx", r"\frac{dy}{dt}=kx")
    assert not equivalent(r"\gamma^2-1", r"\gamma^2-8")
    assert not equivalent("A+2", "a+2")
    assert not equivalent("f'", "f")


# ----------------------------------------------------------------------------------------------------------- properties
FORMS = [
    r"\boxed{%s}",
    r"\boxed{ %s }",
    "Some working with 17 and 4.\n\nSo it is $%s$.",
    "The answer is $%s$.",
    "the final answer is: **%s**",
    "#### %s",
    "<think> 3 </think> <answer> %s </answer>",
    "%s",
    r"Hence \(%s\)",
]


@st.composite
def answers(draw) -> str:
    """An answer of any kind, as normal LaTeX."""
    number = st.integers(-9999, 9999).map(str)
    part = st.one_of(
        number,
        st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda t: rf"\frac{{{t[0]}}}{{{t[1]}}}"),
        st.tuples(st.integers(0, 999), st.integers(0, 99)).map(lambda t: f"{t[0]}.{t[1]:02d}"),
        st.tuples(st.integers(2, 9), st.sampled_from([2, 3, 5, 7])).map(lambda t: rf"{t[0]}\sqrt{{{t[1]}}}"),
        st.tuples(st.integers(2, 9), st.integers(1, 9)).map(lambda t: f"{t[0]}x^2+{t[1]}x"),
    )
    kind = draw(st.sampled_from(["part", "tuple", "set", "interval", "list"]))
    if kind == "part":
        return draw(part)
    items = [draw(number) for _ in range(2)]
    return {"tuple": "(%s, %s)", "set": r"\{%s, %s\}", "interval": "[%s, %s)", "list": "%s, %s"}[kind] % tuple(items)


@given(answers(), st.sampled_from(FORMS))
@settings(max_examples=400, deadline=None)
def test_a_correct_answer_stays_correct_in_every_form(answer, form):
    for spelling in (
        answer,
        answer.replace(r"\frac", r"\dfrac"),
        answer.replace("-", "−"),
        answer.replace(",", r",\ "),
        answer.replace("(", r"\left(").replace(")", r"\right)") if "(" in answer and "[" not in answer else answer,
    ):
        assert verdict_of("default", answer, form % spelling) == "correct"


@given(answers(), answers())
@settings(max_examples=300, deadline=None)
def test_a_verdict_is_symmetric_for_bare_answers(one, other):
    assert verdict_of("default", one, rf"\boxed{{{other}}}") == verdict_of("default", other, rf"\boxed{{{one}}}")


LATEX = r"\frac \sqrt \boxed \text \left( \right) \{ \} \\ \begin{pmatrix} \end{pmatrix} \pm \cup \le \infty \% \$"
OTHERS = "{ } ( ) [ ] | ^ _ & , . ; : = < > + - * / ! ' $ # #### answer is <answer> </answer> and or x y e i 0 7 12"
ODD = "½ ² √ π − × ° € é 漢"
TOKENS = [*LATEX.split(), *OTHERS.split(), *ODD.split(), "\x00", "\u202e", "\u3000", " ", "\n"]


def fuzzed(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(TOKENS, k=rng.randint(0, 40))) for _ in range(count)]


@pytest.mark.slow
def test_ten_thousand_fuzzed_strings_crash_hang_and_leak_nothing():
    golds = ["5", r"\frac{1}{2}", "(1, 2)", r"\{1,2\}", "[0,1)", "x^2+1", "Paris", r"\begin{pmatrix}1\\2\end{pmatrix}"]
    texts = fuzzed(10_000, seed=0)
    slowest = 0.0
    for i, text in enumerate(texts):
        question = Question("", golds[i % len(golds)])
        started = time.thread_time()
        quick = [GRADERS[name].quick(question, text) for name in ("default", "exact", "paper")]
        slowest = max(slowest, time.thread_time() - started)
        assert all(found is None or isinstance(found.verdict, Verdict) for found in quick)
    assert slowest < 2.0
    with GradingWorkers(count=2) as grading:
        undecided = [(Question("", gold), text) for gold in golds for text in texts[:200]]
        found = judge_all(grading, GRADERS["default"], undecided)
        assert not [judgement for judgement in found if judgement.verdict is Verdict.ERROR]
        counts = grading.take_counts()
    assert counts.lost == 0
    assert counts.answers == len(undecided)


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "(",
        r"\boxed{",
        "$",
        "1,",
        "####",
        "answer is ",
        r"\frac",
        "<answer>",
        "9",
        "x^",
        r"\text{",
        "=",
        r"\(",
        "½",
        "<think>",
        "</think>",
        "{a",
        "0.3",
        "a: ",
        "is 7 ",
        "7 (a",
        "'",
        "1+1=",
    ],
)
def test_a_megabyte_of_anything_is_told_at_once(piece):
    text = piece * (1_000_000 // len(piece))
    for name in ("default", "exact", "paper"):
        started = time.thread_time()
        found = GRADERS[name].quick(Question("", "5"), text)
        assert time.thread_time() - started < 5
        assert found is None or found.verdict in (Verdict.WRONG, Verdict.NO_ANSWER)


@pytest.mark.parametrize(
    "piece",
    ["{a", "0.3", "0.", "a: ", "is 5 ", "5 (a", "'", '"', "1+1=", "x \\ne ", "8:30 ", "\\dot3", "{", "a b", "1,"],
)
def test_the_longest_answer_that_is_read_is_told_at_once(piece):
    text = (piece * 2000)[:1990]
    for form in (text, text + "=1", text + " (a)", f"at {text}", f"{text}\\choose"):
        started = time.thread_time()
        GRADERS["default"].quick(Question("", "5"), rf"\boxed{{{form}}}")
        assert time.thread_time() - started < 2


@pytest.mark.slow
def test_no_answer_is_ever_executed(tmp_path):
    """Each would leave a file behind, in this process or in a worker."""
    attempts = [
        f"__import__('os').system('touch {tmp_path}/{{}}')",
        f"exec(\"open('{tmp_path}/{{}}','w')\")",
        f"eval('open(\\'{tmp_path}/{{}}\\',\\'w\\')')",
        f"\\text{{__import__('pathlib').Path('{tmp_path}/{{}}').touch()}}",
        f"(lambda: open('{tmp_path}/{{}}','w'))()",
        f"`touch {tmp_path}/{{}}`; $(touch {tmp_path}/{{}})",
        f"\\input{{|touch {tmp_path}/{{}}}}\\write18{{touch {tmp_path}/{{}}}}",
    ]
    pairs = []
    for i, attempt in enumerate(attempts):
        text = attempt.replace("{}", f"pwned{i}")
        pairs += [(Question("", gold), form % text) for form in FORMS for gold in ("5", "x+1", text)]
    for name in GRADERS:
        with GradingWorkers(count=2) as grading:
            judge_all(grading, GRADERS[name], pairs)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------ lilo grade
def lines_of(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lilo_grade_keeps_the_order_and_explains(monkeypatch, capsys, tmp_path):
    rows = [row for place, row in CORPUS if not place.startswith("hostile")][::7]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["lilo", "grade", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    monkeypatch.setattr(sys, "argv", arguments)
    cli.main()
    found = lines_of(tmp_path / "out.jsonl")
    assert [one["verdict"] for one in found] == [row["default"] for row in rows]
    assert all(set(one) == {"verdict", "extracted", "rule", "seconds"} for one in found)
    assert capsys.readouterr().out.startswith(f"{len(rows)} answers: ")
    monkeypatch.setattr(sys, "argv", [*arguments, "--explain", "--grader", "exact"])
    cli.main()
    found = lines_of(tmp_path / "out.jsonl")
    assert [one["verdict"] for one in found] == [row["exact"] for row in rows]
    assert all(one["explanation"] for one in found)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) >= len(rows)
    assert printed[0].startswith(f"1. {rows[0]['exact']}: gold ")


@pytest.mark.slow
def test_training_and_lilo_grade_use_the_same_function(tiny_run, monkeypatch, tmp_path):
    """Rollouts of a run whose grader is not named are graded by the task; of a named one by `lilo grade` alike."""
    rows = [row for _, row in CORPUS[:50]]
    alone = [GRADERS["default"](*asked(row)).value for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(
        sys, "argv", ["lilo", "grade", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    )
    cli.main()
    assert [one["verdict"] for one in lines_of(tmp_path / "out.jsonl")] == alone


@pytest.mark.parametrize(
    ("line", "arguments", "says"),
    [
        ('{"gold": "5"}', [], "line 2: expected"),
        ('{"gold": [5], "response": "5"}', [], "line 2: expected"),
        ('{"gold": "5", "response": 5}', [], "line 2: expected"),
        ('{"gold": "5", ', [], "line 2: not valid JSON"),
        ('{"gold": "", "response": "5"}', [], "line 2: no response can match the gold ''"),
        ('{"gold": " ", "response": "5"}', [], "line 2: no response can match"),
        ('{"gold": NaN, "response": "nan"}', [], "line 2: NaN is no JSON"),
        ('{"gold": 1e999, "response": "inf"}', [], "line 2: 1e999 is beyond any number"),
        (r'{"gold": "\\boxed{}", "response": "5"}', [], "line 2: no response can match"),
        ('{"gold": "$.$", "response": "5"}', [], "line 2: no response can match"),
        ('{"gold": "5", "response": "5"}', ["--grader", "defualt"], "did you mean 'default'"),
        ('{"gold": "5", "response": "5"}', ["--deadline", "0"], "--deadline must be"),
    ],
)
def test_mistakes_of_lilo_grade_are_one_line_and_lose_nothing(line, arguments, says, monkeypatch, capsys, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"gold": 5, "response": "5"}\n' + line + "\n")
    (tmp_path / "out.jsonl").write_text("older\n")
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    monkeypatch.setattr(sys, "argv", ["lilo", "grade", *files, *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert (tmp_path / "out.jsonl").read_text() == "older\n"


@pytest.mark.slow
def test_the_command_line_grades_a_hostile_file(tmp_path):
    rows = [row for place, row in CORPUS if place.startswith("hostile")][:12]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "lilo_jax.cli", "grade", "--input", "in.jsonl", "--output", "out.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert [one["verdict"] for one in lines_of(tmp_path / "out.jsonl")] == [row["default"] for row in rows]


def test_the_docs_count_every_disagreement_and_say_why(monkeypatch, capsys):
    from benchmarks.grader_disagreements import BEGIN, DOCUMENT, END, OTHERS, REASONS, disagreements, main, table

    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == "\n".join(table()).strip()
    monkeypatch.setattr(sys, "argv", ["grader_disagreements"])
    main()
    printed = capsys.readouterr().out.splitlines()
    for category, rows in disagreements().items():
        assert f"**{category}**" in printed
        assert all(any(line.startswith(f"| {number} | ") for line in printed) for number, _ in rows)
    for category, rows in disagreements().items():
        for name in OTHERS:
            assert (name in REASONS[category]) == any(row[name] != row["default"] for _, row in rows), (category, name)
    assert f"{len(CORPUS)} cases" in text
    assert f"{len(GOLDEN)} categories" in text


# ------------------------------------------------------------------------------------------------ answers of models
def solutions(path: pathlib.Path, *answers: tuple[str, bool]) -> pathlib.Path:
    models = {f"model {i}": {"solution": text, "is_correct": label} for i, (text, label) in enumerate(answers)}
    row = {"question": "How many pens are 2 and 3?", "ground_truth": "They are 2+3=<<2+3=5>>5 pens.\nA: 5", **models}
    path.write_text(json.dumps(row) + "\n")
    return path


def test_answers_of_models_are_counted_and_disagreements_shown(tmp_path, monkeypatch, capsys):
    file = solutions(
        tmp_path / "file.jsonl", ("2+3=<<2+3=5>>5\nA: 5", True), ("2*3=6\nA: 6", False), ("A few.\nA: 6", True)
    )
    monkeypatch.setattr(sys, "argv", ["gsm8k_solutions", str(file)])
    gsm8k_solutions.main()
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" verdicts")[0] for line in printed[:4]] == [
        "model 0: 1 of 1",
        "model 1: 1 of 1",
        "model 2: 0 of 1",
        "all: 2 of 3",
    ]
    assert printed[4] == "line 1, model 2: wrong, labelled correct; gold '5'; ...'A few. #### 6'"
    assert re.fullmatch(r"\d+\.\d\d ms an answer", printed[5])
    assert len(printed) == 6


def test_no_more_than_twenty_disagreements_are_shown(tmp_path):
    found = gsm8k_solutions.labelled(solutions(tmp_path / "file.jsonl", *[("A: 6", True)] * 30))
    assert len(gsm8k_solutions.report(found, [Verdict.WRONG] * 30)) == 31 + 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"question": "q", "answer": "5"}',
        '{"question": "q", "ground_truth": "5", "m": {"solution": 5}}',
    ],
)
def test_a_file_of_another_schema_is_refused_in_one_sentence(text, tmp_path, monkeypatch):
    (tmp_path / "file.jsonl").write_text(text)
    monkeypatch.setattr(sys, "argv", ["gsm8k_solutions", str(tmp_path / "file.jsonl")])
    with pytest.raises(UsageError) as caught:
        gsm8k_solutions.main()
    assert "\n" not in str(caught.value)
