"""Where steps begin: every rule by hand, and for any text that the steps are the text."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilo_jax.tasks.steps import every_character, latex, newlines

SPLITTERS = [newlines, latex, every_character]

MATHS = [r"\(", r"\)", r"\[", r"\]", "[asy]", "[/asy]", r"\begin{align*}", r"\end{align*}", r"\begin{a}", r"\end{a}"]
MARKS = [",", ",$", ": ", " and ", " to ", "=", "+", r"\equiv", r"\cancelto", ". ", ". The", "x.$", r".\]", "a" * 24]
FRAGMENTS = [
    *MATHS,
    *MARKS,
    "$",
    "$$",
    r"\$",
    "\\",
    r"\begin{",
    r"\end{",
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "\u2028",
    "\0",
    "\udc80",
]


def parts(split, text):
    """The steps themselves, once their beginnings are found to be as promised."""
    begins = split(text)
    assert begins[0] == 0
    assert all(begin < end for begin, end in pairwise(begins))
    assert begins[-1] < max(len(text), 1)
    steps = [text[begin:end] for begin, end in pairwise([*begins, len(text)])]
    assert "".join(steps) == text
    return steps


@pytest.mark.parametrize(
    "steps",
    [
        ["She has 3 pens."],
        ["She has 3 pens.", "\nShe buys 2 more.", "\nThat makes 3 + 2 = 5."],
        ["She has 3 pens.", "\nThat makes 3 + 2 = 5.\n#### 5"],
        ["3 + 2 = 5\n#### 5\nAnd so on\n"],  # all behind the answer stays with it
        ["3 + 2 = 5\n\n \n#### 5"],  # the step before is the one that is not blank
        ["3 + 2 = 5", "\n5 * 2 = 10\n#### 10"],
        ["\n\n  \n3 + 2 = 5", "\n5 * 2 = 10"],  # leading blank lines
        ["3 + 2 = 5\n", "\n5 * 2 = 10\n\t\n", "\n10 - 1 = 9\n\n"],  # blank lines within and at the end
        ["3 + 2 = 5", "\n#### 5", "\n2 + 2 = 4\n#### 4"],  # the last answer line is the answer
        ["#### 5"],
        ["\n#### 5"],
        ["3 + 2 = 5", "\n####5"],  # no answer line
        ["\n \n"],
        [""],
    ],
)
def test_newlines(steps):
    assert parts(newlines, "".join(steps)) == steps


def test_every_character():
    assert parts(every_character, "407") == ["4", "0", "7"]
    assert every_character("") == [0]


@pytest.mark.parametrize(
    "steps",
    [
        [""],
        ["\n"],
        ["Short"],
        # Sentences
        ["The first number is even.", " The second number is odd.", "  Their sum is odd as well."],
        ["The first number is even. the second is odd, 3.5 of them."],  # no capital follows
        ["We ask Dr. Brown, i.e. Ann B. Brown, about this.", " She does not know this either."],
        ["Is the second number odd? Yes! It is."],  # full stops only
        ["The length is $x. The$ rest is plain to see."],  # within a formula
        ["Thus.\nThe second number is odd."],  # too short
        ["The first number is even. It is 4."],  # too short at the end
        # Lines
        ["The first number is even", "\nand the second number is odd"],
        ["The first number is even", "\n\n\nand the second number is odd"],  # blank lines lead the next step
        ["The first number is even", "\nThus\nthe second number is odd"],
        ["The first number is even\n\nThus"],
        ["So $x$\nis an even number.", " And so is the second."],
        ["So $x$\nThus\nthe second number is odd"],  # "Thus" takes in what follows before "So $x$" takes it in
        # Formulas that end a sentence
        ["So $x = 2.$", " And so is the second."],
        [r"So \(x = 2.\)", " And so is the second."],
        [r"So \[x = 2.\]", "And so is the second."],
        ["So $$x = 2.$$", "And so is the second."],
        ["So $x = 2$. And so is the second."],
        # Lines of formulas
        ["We find\n\\begin{align*}", "\nx &= 1 + 1 \\\\", "\n&= 2.", "\n\\end{align*}Hence it is even."],
        ["Adding these gives us", "\n\\[\nx = (1 + 1) + 0,", "\n\\]", "\nwhich is an even number."],
        [
            "Adding these gives us",
            "\n$$\n\\begin{aligned}",
            "\nx &= 2",
            "\n\\end{aligned}",
            "\n$$\nas was claimed before.",
        ],
        ["Look at this picture:", "\n[asy]\ndraw((0,0)--(1,1));", "\n[/asy]", "\nThat is a straight line."],
        ["A table \\begin{tabular}{c}", "\n$a.$ Then", "\n\\end{tabular} of one formula."],
        # Formulas within formulas, one formula twice, none at all
        ["We take $x \\text{ as in \\(x\\)", "\n and } y$, which is fine."],
        ["Take \\[x", "\n= y\\] and again \\[x", "\n= y\\] after that."],
        ["We pay \\$5 and then \\$6.", " That is all there is."],
        ["We take all the $x and", "\n\\begin{align*} y at once"],
    ],
)
def test_latex(steps):
    assert parts(latex, "".join(steps)) == steps


A, B, C = "a" * 45, "b" * 45, "c" * 45


@pytest.mark.parametrize(
    "steps",
    [
        # Between words
        [f"{A}, {B} xxxxxxx"],  # 100 characters are not too many
        [f"{A},", f" {B} xxxxxxxx"],
        [f"{A} and", f" {B} xxxxxxxx"],
        [f"{A}:", f" {B} xxxxxxxx"],
        [f"{A} to", f" {B} xxxxxxxx"],
        [f"{A} and {B},", f" {C} xxxxxxxxx"],  # a comma goes before an "and"
        [f"{A}{A},", f" {B}{B},", f" {C}{C},", f" {C}{C}"],  # at the second, then both halves
        [f"{A} and", f" {B}, {'c' * 30}"],  # but not a comma that leaves too little
        [f"{A} {B} xxxxxx, xxxxxx"],
        [f"{A} $x, y$ {B} xxxxxx"],  # nor a comma within a formula
        # Anywhere
        [f"{A} $x =", f" {B} xxxxxxxxx$"],
        [f"{A} $x \\equiv", f" {B} xxxxxxxxx$"],
        [f"{A} $x +", f" {B} xxxxxxxxx$"],
        [f"{A} $x \\cancelto", f" {B} xxxxxxxxx$"],
        [f"${'a' * 28},$", f" {B} = {C}"],  # a comma that ends a formula goes first, and may leave less than 40
        [f"${'a' * 70} =", f" {'b' * 20} + {'c' * 10}$"],
        [f"$a = {'b' * 110} = c$"],
    ],
)
def test_long_steps_are_broken(steps):
    assert parts(latex, "".join(steps)) == steps


def test_a_formula_counts_for_sixty_characters_where_the_middle_is_looked_for():
    """The second comma is nearer to the middle of the text, the first one to that with a longer formula."""
    first, rest = f" {'a' * 41},", f"{'b' * 20},{'c' * 49}"
    assert parts(latex, f"xxx{first}{rest}") == [f"xxx{first}{'b' * 20},", "c" * 49]
    assert parts(latex, f"$x${first}{rest}") == [f"$x${first}", rest]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8), max_size=60))
@settings(max_examples=400, deadline=None)
def test_the_steps_are_the_text(pieces):
    for split in SPLITTERS:
        parts(split, "".join(pieces))


@pytest.mark.parametrize("fragment", [*FRAGMENTS, "$x$,", "\n ", ". A", "$x = y.$\n", "a, ", "\\begin{a}\n\\end{a}"])
def test_one_fragment_again_and_again(fragment):
    text = fragment * (100_000 // len(fragment))
    for split in SPLITTERS:
        parts(split, text)


def test_hostile_texts():
    opened = [f"\\begin{{{name}}}" for name in range(20_000)]
    closed = [begin.replace("begin", "end") for begin in reversed(opened)]
    parts(latex, "".join(opened))
    parts(latex, "".join(opened + closed))
    parts(latex, "$$" + "\n" * 300_000 + "$$")
    parts(latex, "[asy]" + "x = 1;\n" * 40_000 + "[/asy]")
    parts(latex, "".join(random.Random(0).choices(FRAGMENTS, k=50_000)))
