"""Expressions as trees: usual notation in normalised LaTeX, read by recursive descent.

A node is a tuple of its kind and its parts: ("number", "2"), ("letter", "x"), ("+", node, node).
"""

import functools
import re
from typing import Any

Node = tuple[Any, ...]
_TOKEN = re.compile(r"\s*(\\[A-Za-z]+|\d+\.\d+|\.\d+|\d+|[A-Za-z]|[-+*/^_!|(){}\[\]])")
_GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi", "omega",
    "Delta", "Omega", "Gamma", "hbar", "ell",
}  # fmt: skip
_FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "ln", "log", "exp",
}  # fmt: skip
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}


class UndecidedError(Exception):
    """The expression is not read, or its value says nothing."""


def letters_of(node: Node) -> set[str]:
    """The letters of a tree."""
    if node[0] == "letter":
        return {node[1]}
    return set().union(*(letters_of(child) for child in node[1:] if isinstance(child, tuple)))


@functools.lru_cache(maxsize=16384)
def parse(latex: str) -> Node:
    """The tree of an expression; raises `UndecidedError` if it is not of the notation that is read."""
    if len(latex) > 300:
        raise UndecidedError
    tokens, position = [], 0
    while position < len(latex.rstrip()):
        found = _TOKEN.match(latex, position)
        if found is None:
            raise UndecidedError
        tokens.append(found[1])
        position = found.end()
    reader = _Reader(tokens)
    node = reader.sum()
    if reader.peek():
        raise UndecidedError
    return node


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._next, self._depth = tokens, 0, 0

    def peek(self) -> str:
        """The next token; "" at the end."""
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def take(self, expected: str = "") -> str:
        """The next token, which must be `expected` if that is given."""
        token = self.peek()
        if not token or (expected and token != expected):
            raise UndecidedError
        self._next += 1
        return token

    def sum(self) -> Node:
        """Terms joined by + and -."""
        self._depth += 1
        if self._depth > 20:
            raise UndecidedError
        node = self._signed()
        while self.peek() in ("+", "-"):
            node = (self.take(), node, self._product())
        self._depth -= 1
        return node

    def _signed(self) -> Node:
        if self.peek() in ("+", "-"):
            sign, node = self.take(), self._signed()
            return ("negative", node) if sign == "-" else node
        return self._product()

    def _product(self) -> Node:
        """Factors joined by signs of multiplication and division, or standing side by side."""
        node = self._factor()
        while True:
            token = self.peek()
            if token in ("*", r"\cdot", r"\times"):
                self.take()
                node = ("*", node, self._signed_factor())
            elif token in ("/", r"\div"):
                self.take()
                divisor = self._signed_factor()
                if self._starts_factor():  # a/bc is read in two ways
                    raise UndecidedError
                node = ("/", node, divisor)
            elif self._starts_factor():
                if node[0] == "number" and (token[0].isdigit() or token == r"\frac"):  # a mixed number, perhaps
                    raise UndecidedError
                node = ("*", node, self._factor())
            else:
                return node

    def _signed_factor(self) -> Node:
        if self.peek() == "-":
            self.take()
            return ("negative", self._factor())
        return self._factor()

    def _starts_factor(self) -> bool:
        token = self.peek()
        if token == "|":
            return False  # it may close
        known = token[1:] in _FUNCTIONS | _GREEK | {"frac", "sqrt", "pi", "binom"} if token.startswith("\\") else True
        return bool(token) and known and token not in ("+", "-", "*", "/", "^", "_", "!", ")", "}", "]")

    def _factor(self) -> Node:
        node = self._atom()
        while self.peek() in ("^", "!"):
            if self.take() == "!":
                node = ("!", node)
                if self.peek() == "!":
                    raise UndecidedError
            else:
                node = ("^", node, self._argument())
        return node

    def _argument(self) -> Node:
        """What stands in braces, or one token."""
        if self.peek() == "{":
            return self._bracketed("{", "}")
        if self.peek() == "-":
            self.take()
            return ("negative", self._atom())
        token = self.peek()
        if token.isdigit() and len(token) > 1:  # x^10 is x^1 0 to LaTeX, x^{10} to everyone else
            self.take()
            return ("number", token)
        return self._atom()

    def _bracketed(self, opening: str, closing: str) -> Node:
        self.take(opening)
        node = self.sum()
        self.take(closing)
        return node

    def _atom(self) -> Node:
        token = self.peek()
        if token in ("(", "[", "{"):
            return self._bracketed(token, {"(": ")", "[": "]", "{": "}"}[token])
        if token == "|":
            return ("abs", self._bracketed("|", "|"))
        self.take()
        if token[0].isdigit() or token[0] == ".":
            return ("number", token)
        if token.isalpha():
            return self._letter(token)
        name = token[1:]
        if name in _GREEK:
            return self._letter(name)
        if name == "pi":
            return ("constant", "pi")
        if name in ("frac", "binom"):
            if self._tokens[self._next : self._next + 2] == ["{", "d"]:  # a derivative
                raise UndecidedError
            return ({"frac": "/"}.get(name, name), self._argument(), self._argument())
        if name == "sqrt":
            degree: Node = ("number", "2")
            if self.peek() == "[":
                degree = self._bracketed("[", "]")
            return ("root", self._argument(), degree)
        if name in _FUNCTIONS:
            return self._applied(name)
        raise UndecidedError

    def _letter(self, name: str) -> Node:
        if self.peek() == "_":
            self.take()
            index = self.take("{") and self._index() if self.peek() == "{" else self.take()
            return ("letter", f"{name}_{index}")
        if name in ("e", "i"):
            return ("constant", name)
        if self.peek() == "(" and (name.isupper() or self._applies()):  # a function, not a product
            raise UndecidedError
        return ("letter", name)

    def _applies(self) -> bool:
        """Whether a lone letter in brackets follows, as in u(t)."""
        following = self._tokens[self._next + 1 : self._next + 3]
        return len(following) == 2 and following[0].isalpha() and following[1] == ")"

    def _index(self) -> str:
        parts = []
        while self.peek() != "}":
            parts.append(self.take())
        self.take("}")
        return "".join(parts)

    def _applied(self, name: str) -> Node:
        power: Node | None = None
        base: Node | None = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                power = self._argument()
            else:
                base = self._argument()
        if power in (("negative", ("number", "1")),):
            if name not in _INVERSES:
                raise UndecidedError
            name, power = _INVERSES[name], None
        node: Node = (name, self._operand())
        if base is not None or name == "log":
            if name != "log":
                raise UndecidedError
            node = ("/", node, ("ln", base or ("number", "10")))
        return node if power is None else ("^", node, power)

    def _operand(self) -> Node:
        """The argument of a function: in brackets, or the factors that follow up to the next function."""
        if self.peek() in ("(", "[", "{", "|"):
            node = self._factor()
            return node
        node = self._factor()
        while self._starts_factor() and self.peek()[1:] not in _FUNCTIONS and self.peek() not in ("(", "["):
            node = ("*", node, self._factor())
        if self.peek() == "/":  # sin x/2 is read in two ways
            raise UndecidedError
        return node
