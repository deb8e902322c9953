"""`where`: a small safe expression over the axis values of a cell, such as `weight > 0 or adapter == "none"`."""

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from registry.errors import Refused
from registry.names import suggest

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_COMBINE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_TAKEN = "It takes axis names, numbers, quoted texts, null, lists, == != < <= > >= in, and or not, + - * / %."

NULL = "null"  # the word for a value that is not given


class Where:
    """A checked expression: called with the axis values of a cell, it gives whether the cell is drawn."""

    def __init__(self, text: str, axes: Iterable[str]) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
            self._check(self._tree, list(axes))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Refused(f"where={text!r} cannot be read ({getattr(error, 'msg', error)}). {_TAKEN}") from None

    def __call__(self, values: Mapping[str, Any]) -> bool:
        try:
            return bool(_value(self._tree, values))
        except (TypeError, ArithmeticError, RecursionError) as error:
            given = ", ".join(f"{name}={value!r}" for name, value in values.items())
            raise Refused(f"where={self.text!r} does not work for {given}: {error}.") from None

    def _check(self, tree: ast.expr, axes: list[str]) -> None:
        for node in _nodes(tree):
            if isinstance(node, ast.Name | ast.Attribute):
                name = ast.unparse(node)
                if name not in axes and name != NULL:
                    hint = suggest(name, axes) if axes else "This grid varies no axis."
                    raise Refused(f"where={self.text!r} names {name!r}, which is not an axis of this grid. {hint}")
            elif isinstance(node, ast.Constant):
                if not isinstance(node.value, str | int | float | bool | None):
                    raise Refused(f"where={self.text!r} holds {node.value!r}. {_TAKEN}")
            elif type(node) not in _KNOWN:
                raise Refused(f"where={self.text!r} holds {ast.unparse(node) if isinstance(node, ast.expr) else node!r}. {_TAKEN}")


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of an expression; `weight.hat` is one."""
    yield tree
    if not isinstance(tree, ast.Attribute):
        for child in ast.iter_child_nodes(tree):
            yield from _nodes(child)


_KNOWN: frozenset[type[ast.AST]] = frozenset(
    {ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Compare, ast.List, ast.Tuple, ast.Load, ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd}
    | set(_COMPARE)
    | set(_COMBINE)
)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() | ast.Attribute():
            name = ast.unparse(node)
            return None if name == NULL else values[name]
        case ast.List() | ast.Tuple():
            return [_value(item, values) for item in node.elts]
        case ast.BoolOp(op=ast.And()):
            return all(_value(item, values) for item in node.values)
        case ast.BoolOp():
            return any(_value(item, values) for item in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, values)
        case ast.UnaryOp():
            operand = _value(node.operand, values)
            return -operand if isinstance(node.op, ast.USub) else operand
        case ast.BinOp():
            left, right = _value(node.left, values), _value(node.right, values)
            if isinstance(node.op, ast.Mult | ast.Mod) and not all(isinstance(side, int | float) for side in (left, right)):
                raise TypeError("* and % take numbers")
            return _COMBINE[type(node.op)](left, right)
        case ast.Compare():
            items = [_value(item, values) for item in (node.left, *node.comparators)]
            if None in items and "none" in items:
                raise TypeError("what is not given is null here, not the text 'none': write == null or != null")
            return all(_COMPARE[type(op)](items[at], items[at + 1]) for at, op in enumerate(node.ops))
    raise TypeError(f"{ast.unparse(node)} has no value")
