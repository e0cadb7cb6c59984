"""Which metrics and labels an expression of PromQL names: as much of the language as our own expressions use."""

import dataclasses
import re

TOKEN = re.compile(
    r"""\s+|(?P<string>"(?:[^"\\]|\\.)*")|(?P<duration>\d+(?:ms|[smhdwy]))|(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^()\[\]{},<>=])""",
    re.VERBOSE,
)
# Before a list of labels in brackets.
GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = GROUPINGS | {"and", "or", "unless", "bool", "offset"}


@dataclasses.dataclass
class Named:
    """What an expression names: metrics, each with the values asked of its labels, and labels that it groups by."""

    metrics: list[tuple[str, dict[str, str]]]
    labels: set[str]


def tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ValueError(f"no PromQL at {text[at:at + 20]!r}")
        at = match.end()
        if match.lastgroup:
            found.append((match.lastgroup, match.group()))
    return found


def named(text: str) -> Named:
    found = Named([], set())
    rest = tokens(text)
    at = 0
    while at < len(rest):
        kind, word = rest[at]
        after = rest[at + 1][1] if at + 1 < len(rest) else ""
        at += 1
        if kind != "name":
            continue
        if word in GROUPINGS and after == "(":
            end = closing(rest, at, ")")
            found.labels |= {one for what, one in rest[at:end] if what == "name"}
            at = end
        elif word not in WORDS and after != "(" and not is_function(word, rest, at):
            asked = {}
            if after == "{":
                end = closing(rest, at, "}")
                asked = matchers(rest[at + 1 : end])
                at = end
            found.metrics.append((word, asked))
    return found


def is_function(word: str, rest: list[tuple[str, str]], at: int) -> bool:
    """Whether a word is an aggregation whose labels stand before what it takes: sum by (x) (...)."""
    return at < len(rest) and rest[at][1] in {"by", "without"} and word.islower() and "_" not in word


def closing(rest: list[tuple[str, str]], at: int, sign: str) -> int:
    return next(place for place in range(at, len(rest)) if rest[place] == ("sign", sign))


def matchers(rest: list[tuple[str, str]]) -> dict[str, str]:
    """The labels in braces, each with its sign and value."""
    found = {}
    for place, (kind, word) in enumerate(rest):
        if kind == "name":
            found[word] = rest[place + 1][1] + rest[place + 2][1]
    return found
