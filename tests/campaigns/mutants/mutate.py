"""Small changes to a module's source, each of which a test should notice: comparisons, arithmetic, conditions, calls.

Edits are made on exact source positions, so that everything else stays as it is written. Strings, annotations and
docstrings are left alone: what they say is no decision. The campaign that runs tests on mutants is `campaign.py`.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple


class Mutant(NamedTuple):
    """One change. `before` and `after` are the changed piece of source, `line` counts from 1."""

    operator: str
    line: int
    before: str
    after: str
    source: str


_FLIPPED: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
}
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
}
_DECLARATIONS = ("annotation", "returns", "decorator_list", "type_params")
"""Fields of syntax trees that say what something is, and decide nothing; a class's `frozen=True` is one, too."""

_TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def mutants_of(source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    offsets = _offsets(source)
    found = []
    for node in _judged(tree):
        for operator, target, after in _changes(node):
            start, end = _span(target, offsets)
            before = source.encode()[start:end].decode()
            changed = (source.encode()[:start] + after.encode() + source.encode()[end:]).decode()
            if changed != source and _compiles(changed):
                found.append(Mutant(operator, target.lineno, before, after, changed))
    return sorted(found, key=lambda mutant: mutant.line)


def chosen(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return up to `count` mutants: operators in turn, each operator's in a random order that `seed` fixes."""
    shuffled = random.Random(seed).sample(mutants, len(mutants))
    by_operator: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in shuffled:
        by_operator[mutant.operator].append(mutant)
    turns = sorted(by_operator.values(), key=lambda group: group[0].operator)
    picked = [group[turn] for turn in range(len(mutants)) for group in turns if turn < len(group)]
    return picked[:count]


def _judged(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that decide something: no annotations, no type checkers' imports."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        for name, value in ast.iter_fields(node):
            if name in _DECLARATIONS or (isinstance(node, ast.ClassDef) and name == "keywords"):
                continue
            children = value if isinstance(value, list) else [value]
            todo += [child for child in children if isinstance(child, ast.AST)]


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """Yield (operator, node to replace, its new source) for all mutants at one node."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            for sign in _FLIPPED[type(op)]:
                yield "comparison", node, f"({ast.unparse(left)} {sign} {ast.unparse(right)})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            yield "arithmetic", node, f"({ast.unparse(left)} {_ARITHMETIC[type(op)]} {ast.unparse(right)})"
        case ast.BoolOp(op=op, values=values):
            other = " or " if isinstance(op, ast.And) else " and "
            yield "and-or", node, "(" + other.join(f"({ast.unparse(value)})" for value in values) + ")"
            for value in values:
                rest = ast.BoolOp(op, [one for one in values if one is not value]) if len(values) > 2 else None
                only = next(one for one in values if one is not value)
                yield "operand", node, f"({ast.unparse(rest or only)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", node, f"({ast.unparse(operand)})"
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield "sign", node, f"({ast.unparse(operand)})"
        case ast.Call():
            yield from _calls(node)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            yield "constant", node, repr(value + 1 if isinstance(value, int) else value * 2 or 1.0)
        case ast.Constant(value=bool() as value):
            yield "constant", node, repr(not value)
        case ast.stmt():
            yield from _statements(node)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            swapped = f"({ast.unparse(orelse)} if {ast.unparse(test)} else {ast.unparse(body)})"
            yield "condition", node, swapped
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            for generator in node.generators:
                for condition in generator.ifs:
                    yield "filter", condition, "True"


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.expr, str]]:
    if isinstance(node.func, ast.Name) and node.func.id in _TWINS and node.args:
        yield "twin", node.func, _TWINS[node.func.id]
    is_symmetric = isinstance(node.func, ast.Name) and node.func.id in ("min", "max")
    if len(node.args) >= 2 and not is_symmetric and not any(isinstance(one, ast.Starred) for one in node.args[:2]):
        first, second = node.args[:2]
        if ast.unparse(first) != ast.unparse(second):
            swapped = ast.Call(node.func, [second, first, *node.args[2:]], node.keywords)
            yield "arguments", node, ast.unparse(swapped)


def _statements(node: ast.stmt) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    match node:
        case ast.If(test=test) | ast.While(test=test):
            yield "condition", test, f"(not ({ast.unparse(test)}))"
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield "return", node, "return None"
        case ast.Raise() | ast.Continue() | ast.Break():
            yield "removed", node, "pass"
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _ARITHMETIC:
            yield "arithmetic", node, f"{ast.unparse(target)} {_ARITHMETIC[type(op)]}= {ast.unparse(value)}"
            yield "removed", node, "pass"
        case ast.Expr(value=ast.Call()):
            yield "removed", node, "pass"


def _offsets(source: str) -> list[int]:
    """Return the offset in bytes of each line."""
    found = [0]
    for line in source.encode().splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


def _span(node: ast.expr | ast.stmt, offsets: list[int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
