"""Where-expressions: the small SQL, from text to a tree.

::

    expr    := and-expr (OR and-expr)*
    and     := not-expr (AND not-expr)*
    not     := NOT not-expr | test
    test    := operand [ (= | != | <> | < | <= | > | >=) operand
                       | [NOT] IN (literal, ...) | [NOT] LIKE 'pattern' | [NOT] BETWEEN operand AND operand
                       | IS [NOT] NULL ] | ( expr )
    operand := column | "quoted column" | 'text' | number | TRUE | FALSE | NULL

Every mistake is a `FilterError` that points at its column of the expression.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import InvalidOperation
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeAlias

from retr.index.errors import FilterError
from retr.index.where.comparisons import Literal, Number

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
  | (?P<string>'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")+"|`[^`]+`)
  | (?P<word>[^\W\d]\w*)
  | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
# An expression cut at its numbers, as `_TOKEN` finds them: where neither is, there are signs and spaces alone.
_APART = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")+"|`[^`]+`|[^\W\d]\w*)"""
    r"""|([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))"""
)
_KEYWORDS = {"and", "or", "not", "in", "like", "is", "null", "between", "true", "false"}
_COMPARE = {"=": "equal", "==": "equal", "!=": "not_equal", "<>": "not_equal"} | {
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
_MAX_DEPTH = 100


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    def __str__(self) -> str:
        return repr(self.text) if self.text else "the end"


class Operand(NamedTuple):
    """A column (``name`` is set) or a literal, where it stands, and how it is written."""

    at: int
    name: str | None = None
    value: Literal = None
    text: str = "null"


class Predicate(NamedTuple):
    """One predicate: ``kind`` is a compare function's name, ``in``, ``like``, ``between``, ``null`` or ``is``."""

    at: int
    kind: str
    left: Operand
    right: tuple[Operand, ...] = ()
    negated: bool = False


class Logic(NamedTuple):
    """``and`` or ``or`` over its parts, or ``not`` of its only part."""

    kind: str
    parts: tuple[Node, ...]


Node: TypeAlias = "Predicate | Logic"


#: The trees of longer expressions, in characters, are not kept: lists of many values would fill the memory.
MOST_KEPT = 10_000


def parse(expression: str) -> Node:
    """Read an expression.

    Raises
    ------
    FilterError
        It cannot be read.
    """
    return _kept(expression) if len(expression) <= MOST_KEPT else _Parser(expression).parse()


# A question's condition is read for its mask and for what it names.
@lru_cache(maxsize=64)
def _kept(expression: str) -> Node:
    return _Parser(expression).parse()


def without_numbers(expression: str) -> tuple[Hashable, list[str]]:
    """Return what is left of an expression without its numbers, and these as they are written, in order.

    Two expressions of which the same is left have the same tree but for the numbers in it.

    >>> without_numbers("age < 60 and t1 > -1.5")[1]
    ['60', '-1.5']
    """
    parts = _APART.split(expression)
    return (*parts[::3], *parts[1::3]), [number for number in parts[2::3] if number is not None]


def with_numbers(tree: Node, numbers: Iterator[str]) -> Node:
    """Return a tree with other numbers, in the order in which they are written; its places are those of the first text.

    Raises
    ------
    decimal.InvalidOperation
        A number cannot be read.
    """
    if isinstance(tree, Logic):
        return Logic(tree.kind, tuple([with_numbers(part, numbers) for part in tree.parts]))
    left, right = _with_number(tree.left, numbers), tuple([_with_number(one, numbers) for one in tree.right])
    return Predicate(tree.at, tree.kind, left, right, tree.negated)


def _with_number(operand: Operand, numbers: Iterator[str]) -> Operand:
    if not isinstance(operand.value, Number):
        return operand
    text = next(numbers)
    return Operand(operand.at, None, Number.parse(text), text)


def fail(expression: str, message: str, at: int, hint: str | None = None) -> NoReturn:
    """Raise the error for a mistake at offset ``at``."""
    raise FilterError(message, expression=expression, position=min(at, len(expression)), hint=hint)


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, expression: str) -> None:
        self._text = expression
        if not expression.isascii() and any("\ud800" <= sign <= "\udfff" for sign in expression):
            at = next(at for at, sign in enumerate(expression) if "\ud800" <= sign <= "\udfff")
            fail(expression, "the expression is not UTF-8", at)
        self._tokens = list(self._scan())
        self._next = 0
        self._depth = 0

    def _scan(self) -> list[_Token]:
        tokens = []
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                self._unreadable(at)
            kind = match.lastgroup
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "", end)]

    def _unreadable(self, at: int) -> NoReturn:
        start = self._text[at]
        if start.isdecimal() or start in "+-.":
            word = "".join(takewhile(lambda sign: sign.isalnum() or sign in "+-._", self._text[at:]))
            hint = "numbers are written like 60, -1.5 or 1e3, texts in single quotes"
            fail(self._text, f"cannot read {word[:40]!r}", at, hint)
        if start == "'":
            fail(self._text, "a text has no closing quote", at, "texts are written 'like this', a quote as ''")
        if start in '"`':
            fail(self._text, "a column name has no closing quote", at, 'quoted columns are written "like this"')
        fail(self._text, f"cannot read {start!r}", at)

    def parse(self) -> Node:
        if self._peek().kind == "end":
            fail(self._text, "the expression is empty", 0, "write for example: age >= 60 and sex = 'F'")
        tree = self._or()
        rest = self._peek()
        if rest.kind != "end":
            fail(self._text, f"expected 'and', 'or' or the end, got {rest.text!r}", rest.at)
        return tree

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _word(self, *words: str) -> bool:
        """Take the next token if it is one of these keywords."""
        token = self._peek()
        found = token.kind == "word" and token.text.lower() in words
        self._next += found
        return found

    def _sign(self, *signs: str) -> bool:
        token = self._peek()
        found = token.kind == "sign" and token.text in signs
        self._next += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._sign(sign):
            fail(self._text, f"expected {sign!r}, got {self._peek()}", self._peek().at)

    def _or(self) -> Node:
        parts = [self._and()]
        while self._word("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Logic("or", tuple(parts))

    def _and(self) -> Node:
        parts = [self._not()]
        while self._word("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else Logic("and", tuple(parts))

    def _not(self) -> Node:
        # Depth is the length of the text at worst; a loop keeps "not not not ..." off the stack.
        flips = 0
        while self._word("not"):
            flips += 1
        node = self._test()
        return Logic("not", (node,)) if flips % 2 else node

    def _test(self) -> Node:
        if self._sign("("):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                fail(self._text, "too many parentheses inside each other", self._tokens[self._next - 1].at)
            inner = self._or()
            self._expect(")")
            self._depth -= 1
            return inner
        left = self._operand()
        at = self._peek().at
        if self._sign(*_COMPARE):
            sign = self._tokens[self._next - 1].text
            return Predicate(at, _COMPARE[sign], left, (self._operand(),))
        if self._word("is"):
            negated = self._word("not")
            if not self._word("null"):
                fail(self._text, "expected 'null' after 'is'", self._peek().at)
            return Predicate(at, "null", left, negated=negated)
        negated = self._word("not")
        if self._word("in"):
            self._expect("(")
            values = [self._operand()]
            while self._sign(","):
                values.append(self._operand())
            self._expect(")")
            return Predicate(at, "in", left, tuple(values), negated)
        if self._word("like"):
            return Predicate(at, "like", left, (self._operand(),), negated)
        if self._word("between"):
            low = self._operand()
            if not self._word("and"):
                fail(self._text, "expected 'and' between the two ends of 'between'", self._peek().at)
            return Predicate(at, "between", left, (low, self._operand()), negated)
        if negated:
            fail(self._text, "expected 'in', 'like' or 'between' after 'not'", self._peek().at)
        return Predicate(left.at, "is", left)

    def _operand(self) -> Operand:
        token = self._take()
        if token.kind == "number":
            try:
                return Operand(token.at, value=Number.parse(token.text), text=token.text)
            except InvalidOperation:
                fail(self._text, "the exponent of a number is too large", token.at)
        if token.kind == "string":
            value = unicodedata.normalize("NFC", token.text[1:-1].replace("''", "'"))
            return Operand(token.at, value=value, text=token.text)
        if token.kind == "quoted":
            return Operand(token.at, name=token.text[1:-1].replace('""', '"'))
        if token.kind == "word":
            word = token.text.lower()
            if word in {"true", "false"}:
                return Operand(token.at, value=word == "true", text=word)
            if word == "null":
                return Operand(token.at)
            if word not in _KEYWORDS:
                return Operand(token.at, name=token.text)
        fail(self._text, f"expected a column or a value, got {token}", token.at)
