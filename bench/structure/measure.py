"""Measures the structure of a checkout from its syntax trees: sizes, folders, imports, cycles. No code is run.

    python bench/structure/measure.py [CHECKOUT ...]

One column a checkout. Files of three lines or fewer are left out of the sizes. "All" imports count those inside functions and under
TYPE_CHECKING. An edge goes from a module to a module it imports.
"""

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PACKAGES = ("registry", "infer", "train", "loraloom")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]


def main(checkouts: Iterable[str]) -> None:
    columns = [figures(Path(checkout).resolve()) for checkout in checkouts]
    for row in columns[0]:
        print("| " + " | ".join([row, *(column[row] for column in columns)]) + " |")


def figures(root: Path) -> dict[str, str]:
    """Row -> text, as bench/README.md shows them."""
    sources = {path: path.read_text(encoding="utf-8") for room in PACKAGES for path in sorted((root / room).rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    sized = {path: len(text.splitlines()) for path, text in sources.items() if len(text.splitlines()) > 3}
    functions = [node for path in sized for node in ast.walk(trees[path]) if isinstance(node, Function)]
    heights = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]
    folders = Counter(path.parent for path in sources if path.name != "__init__.py")
    modules = {_module(root, path): trees[path] for path in sources}
    top, every = _graph(modules, top_only=True), _graph(modules, top_only=False)
    fan_in = Counter(target for targets in every.values() for target in targets)
    shared = {folder: count for folder, count in folders.items() if folder.name not in ("families", "methods")}
    widest = max(shared, key=lambda folder: shared[folder])
    return {
        "files, lines": f"{len(sized)}, {sum(sized.values()):,}",
        "lines a file: median / p90 / max": _spread(sized.values()),
        "lines a function: median / p90 / max": _spread(heights),
        "functions above 50 lines": f"{sum(height > 50 for height in heights)} of {len(heights):,}",
        "arguments: p90 / max": "{1} / {2}".format(*_spread([_arguments(node) for node in functions]).split(" / ")),
        "functions typed": f"{100 * sum(_typed(node) for node in functions) / len(functions):.0f} %",
        "folders; files a folder: median / max (families, methods aside)": (
            f"{len(folders)}; {statistics.median(folders.values()):.0f} / {shared[widest]} ({widest.relative_to(root)})"
        ),
        "path depth: median / max": "{} / {}".format(*_depths(root, sources)),
        "fan-out: median / p90 / max": _spread([len(targets) for targets in every.values()]),
        "fan-in, the three highest": ", ".join(f"{count} {name}" for name, count in fan_in.most_common(3)),
        "modules in import cycles: at the top / all": f"{len(_cyclic(top))} / {len(_cyclic(every))}",
        "longest import chain (top)": str(_longest(top)),
    }


def _module(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _spread(numbers: Iterable[int]) -> str:
    ordered = sorted(numbers)
    return f"{statistics.median(ordered):.0f} / {ordered[int(0.9 * (len(ordered) - 1))]} / {ordered[-1]}"


def _depths(root: Path, sources: Iterable[Path]) -> tuple[int, int]:
    depths = [len(path.relative_to(root).parts) - 1 for path in sources]
    return round(statistics.median(depths)), max(depths)


def _arguments(node: Function) -> int:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in given if argument.arg not in ("self", "cls")])


def _typed(node: Function) -> bool:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return node.returns is not None and all(argument.annotation for argument in given if argument.arg not in ("self", "cls"))


def _graph(modules: Mapping[str, ast.Module], *, top_only: bool) -> Graph:
    return {
        name: {target for node in (tree.body if top_only else ast.walk(tree)) for target in _targets(node, modules)} - {name}
        for name, tree in modules.items()
    }


def _targets(node: ast.AST, modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """The modules of the checkout that an import statement names; `from a import b` is a.b where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            if full in modules or node.module in modules:
                yield full if full in modules else node.module


def _cyclic(graph: Graph) -> set[str]:
    """Modules that can be reached from themselves."""
    return {name for name in graph if name in _reached(graph, graph[name])}


def _reached(graph: Graph, begin: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    waiting = list(begin)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def _longest(graph: Graph) -> int:
    """Modules in the longest chain of imports; cycles are left out."""
    lengths: dict[str, int] = dict.fromkeys(_cyclic(graph), 0)

    def length(name: str) -> int:
        if name not in lengths:
            lengths[name] = 1 + max((length(target) for target in graph[name]), default=0)
        return lengths[name]

    return max(length(name) for name in graph)


if __name__ == "__main__":
    main(sys.argv[1:] or ["."])
