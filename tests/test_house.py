"""The rules of the house that can be checked by reading it."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import loraloom
from loraloom.cli import find_commands

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"registry": 0, "infer": 1, "train": 2, "loraloom": 3}
SOURCES = sorted(path for room in FLOORS for path in (ROOT / room).rglob("*.py"))
ALL_PYTHON = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]
TEST_FILES = [path for path in ALL_PYTHON if path.name.startswith("test_") and path.parent != ROOT / "tests"]
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "wandb", "matplotlib", "scipy")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, by its full name."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    above = {name for name in imports(path) if FLOORS.get(name.partition(".")[0], -1) > FLOORS[room]}
    assert not above, f"{room} may not import {above}"


def test_only_previews_draw_in_train() -> None:
    """train learns; what draws is infer: previews, checkpoints that are judged or chosen, sliders without images, the base's sheets."""
    drawing = {
        named(path) for path in SOURCES if named(path).startswith("train/") and any(name.startswith("infer") for name in imports(path))
    }
    reads_votes = ("train/choosing/", "train/preference/")
    apart = ("train/pocket/", "train/slider/", "train/prior/", "train/judging/", *reads_votes)
    unexpected = {name for name in drawing if "preview" not in name and not name.startswith(apart)}
    assert unexpected == set()


def test_only_the_console_prints() -> None:
    """Names of files and their metadata are made printable there; the embedded base's own training and a child's report to us are apart."""
    printing = {
        named(path)
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (
            isinstance(node, ast.Attribute)
            and node.attr in ("stdout", "stderr")
            and isinstance(node.value, ast.Name)
            and node.value.id == "sys"
        )
    }
    apart = {"loraloom/console.py", "registry/converting/unpickle.py"}
    assert {name for name in printing if not name.startswith("train/pocket/")} - apart == set()


def test_no_module_imports_its_own_package() -> None:
    """A package's own modules never import its __init__ for what it re-exports: that is how cycles begin."""
    rooms = {path: path.relative_to(ROOT).parts[0] for path in SOURCES if path.name != "__init__.py"}
    assert {named(path) for path, room in rooms.items() if room in top_imports(path)} == set()


def test_the_packages_have_no_import_cycles() -> None:
    """Imports in functions and under TYPE_CHECKING count: a cycle that is moved there is still one to its reader."""
    modules = {module_name(path): path for path in SOURCES}
    edges = {name: {found for found in imported_modules(path) if found in modules} - {name} for name, path in modules.items()}
    assert cycle_of(edges) == []


def test_a_cycle_of_imports_is_found() -> None:
    assert sorted(set(cycle_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}))) == ["a", "b", "c"]


def cycle_of(edges: Mapping[str, set[str]]) -> list[str]:
    """The names of a cycle, the first again at the end; [] where there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as fault:
        return list(fault.args[1])
    return []


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MOST_FILES = 20
TABLES = {"families", "methods"}  # folders with one file for each row of a table


def test_no_folder_holds_more_files_than_fit_a_screen() -> None:
    files = Counter(path.parent for path in SOURCES)
    assert {named(folder): number for folder, number in files.items() if number > MOST_FILES and folder.name not in TABLES} == {}


@pytest.mark.parametrize("path", TEST_FILES, ids=named)
def test_tests_stand_in_the_folder_of_what_they_test(path: Path) -> None:
    """tests/train/loop/test_step.py tests train/loop/step.py; a test of several modules lies in their common folder.

    tests/faults tests all of them: the short form of bench/faults.
    """
    name = path.parent.relative_to(ROOT / "tests")
    assert any((ROOT / name).rglob("*.py")) or (name.parts and (ROOT / "bench" / name).is_dir()), f"{name} has no module"


SEAMS = ("loop", "plan", "finish", "session", "resolve", "stream", "keys", "store")


def test_every_seam_has_tests_of_its_own() -> None:
    seams = {named(path): path for path in SOURCES if path.stem in SEAMS}
    assert {Path(name).stem for name in seams} == set(SEAMS)
    tested = {name for name, path in seams.items() if (ROOT / "tests" / path.parent.relative_to(ROOT) / f"test_{path.name}").is_file()}
    assert seams.keys() - tested == set()


def top_imports(path: Path) -> set[str]:
    """What a file imports when it is imported."""
    return modules_of(tree_of(path).body)


def imported_modules(path: Path) -> set[str]:
    """What a file imports anywhere: at its top, in functions, under TYPE_CHECKING."""
    return modules_of(ast.walk(tree_of(path)))


def modules_of(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that import statements name: `from a import b` is a.b where that is a module, and a for every other name."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            folder = ROOT / node.module.replace(".", "/")
            modules = {alias.name for alias in node.names if (folder / f"{alias.name}.py").is_file() or (folder / alias.name).is_dir()}
            names |= {f"{node.module}.{name}" for name in modules}
            names |= {node.module} if len(modules) < len(node.names) else set()
    return names


def test_datasets_holds_data_only() -> None:
    assert [named(path) for path in (ROOT / "datasets").rglob("*.py")] == []


def test_import_datasets_is_hugging_faces() -> None:
    command = "import datasets; print(datasets.__file__); datasets.Dataset"
    child = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(child.stdout.strip()).is_relative_to(ROOT / "datasets")


@pytest.mark.parametrize("command", [["--help"], ["registry", "list"], ["train", "--help"], ["grid", "--help"]], ids=" ".join)
def test_cheap_commands_import_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    program = f"import sys; from loraloom.cli import main; print('\\n', main({command!r}), sorted(set(sys.modules) & set({HEAVY!r})))"
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1].split(maxsplit=1) == ["0", "[]"], child.stderr


def test_a_listing_imports_no_family(tmp_path: Path) -> None:
    program = "import sys; from loraloom.cli import main; print('\\n', main(['registry', 'list']), 'registry.families' in sys.modules)"
    home = {**os.environ, "LORALOOM_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    home.pop("LORALOOM_POCKET", None)
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=home, capture_output=True, text=True, check=True)
    assert child.stdout.split()[-2:] == ["0", "False"] and "pocket-lines" in child.stdout


def test_help_imports_only_the_standard_library_and_us() -> None:
    """Start-up time, as a list of imports: `loraloom --help` answers in under 0.3 s because nothing else is loaded."""
    program = (
        "import sys; old = set(sys.modules); from loraloom.cli import main; main(['--help']); print('\\n', sorted(set(sys.modules) - old))"
    )
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ast.literal_eval(child.stdout.splitlines()[-1].strip())}
    assert loaded - set(sys.stdlib_module_names) <= set(FLOORS)


def test_tests_import_large_libraries_where_they_use_them() -> None:
    """Collection loads torch at most: diffusers at the top of one test file costs every run of pytest seconds."""
    tests = [path for path in ALL_PYTHON if path not in SOURCES]
    large = {named(path): {name.partition(".")[0] for name in top_imports(path)} & set(HEAVY) - {"torch"} for path in tests}
    assert {name: found for name, found in large.items() if found} == {}


def test_a_pure_test_is_collected_without_large_libraries() -> None:
    program = (
        "import sys, pytest; pytest.main(['--collect-only', '-qq', 'tests/infer/grid/test_where.py']); "
        f"print('\\n', sorted(set(sys.modules) & set({(*HEAVY, 'hydra')!r})))"
    )
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "test_where.py: " in child.stdout
    assert child.stdout.splitlines()[-1].strip() == "[]"


def test_a_tilde_is_expanded_in_one_place() -> None:
    """pathlib's own way raises RuntimeError for a user whom the system does not know."""
    assert [named(path) for path in SOURCES if "expanduser" in path.read_text(encoding="utf-8")] == ["registry/home.py"]


def test_nothing_is_called_utils() -> None:
    assert [named(path) for path in ALL_PYTHON if re.fullmatch(r"_?(utils?|common|helpers?|misc)", path.stem)] == []


def test_family_names_are_tested_only_in_their_own_files() -> None:
    pattern = re.compile(r"\bis_(sd\w*|sdxl|flux\w*|xl)\b|\bfamily(\.name)?\s*(==|!=|\bin\b)\s*[(\[{]?\s*[\"']")
    found = [
        f"{named(path)}:{number}"
        for path in SOURCES
        if "families" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_family_is_named_outside_the_files_of_the_families() -> None:
    """Code that knows a family by its name is a fact of that family in the wrong place; conf/ is data and may name them."""
    from registry.detect.other_families import DETECT_ONLY
    from registry.families import FAMILIES

    names = {*FAMILIES, *(row.family for row in DETECT_ONLY)}
    free = {path for path in SOURCES if path.parent.name == "families" or path.name == "other_families.py"}
    assert len(free) > len(FAMILIES)
    found = [
        f"{named(path)}:{node.lineno} {node.value}"
        for path in SOURCES
        if path not in free
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []


def test_nothing_is_left_to_do_or_skipped() -> None:
    product = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError|breakpoint\(\)")
    tests = re.compile(r"mark\.(skip|xfail)|pytest\.skip|importorskip")
    found = [
        f"{named(path)}:{number}"
        for path in ALL_PYTHON
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (tests if "tests" in path.parts else product).search(line)
    ]
    assert found == []


def test_every_public_name_can_be_had() -> None:
    for name in loraloom.__all__:
        assert getattr(loraloom, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        loraloom.nothing  # noqa: B018


def test_the_public_names_are_these() -> None:
    models = {"FAMILIES", "Family", "LoomError", "Record", "Store", "inspect_file", "load_base"}
    train = {"TrainConfig", "DataConfig", "LoraConfig", "OptimConfig", "ScheduleConfig", "ObjectiveConfig", "CheckpointConfig"}
    train |= {"HeldoutConfig", "PreviewConfig", "train_lora"}
    merging = {"METHODS", "Recipe", "combine_loras", "convert", "extract_lora", "fuse_lora", "merge"}
    drawing = {"AXES", "Axes", "GridConfig", "Render", "render_grid"}
    assert set(loraloom.__all__) == models | train | merging | drawing | {"__version__"}
    assert set(loraloom.__all__) <= set(dir(loraloom))


def test_import_loraloom_is_cheap() -> None:
    program = f"import sys, loraloom; print(sorted(set(sys.modules) & set({HEAVY!r} + ('sqlalchemy', 'hydra', 'rich'))))"
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(find_commands()))
def test_every_command_has_one_line_of_help(name: str) -> None:
    module = find_commands()[name]
    assert 10 < len(module.HELP) < 110
    assert hasattr(module, "add_parser") or hasattr(module, "run")


def test_every_package_is_typed() -> None:
    assert [room for room in FLOORS if not (ROOT / room / "py.typed").is_file()] == []


def test_what_we_need_is_pinned() -> None:
    """constraints.txt says what is tested: every direct dependency, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.split(r"[\[<>=!~ ]", one)[0].lower() for one in needed} - {"loraloom"}
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert names - pinned == set()


def test_the_lowest_versions_are_tested() -> None:
    """constraints-lowest.txt pins each dependency at the lower bound that pyproject.toml declares."""
    needed = [Requirement(one) for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    declared = {one.name: Version(bound.version) for one in needed for bound in one.specifier if bound.operator == ">="}
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    tested = {name: Version(version) for name, _, version in (line.partition("==") for line in lines) if version}
    assert tested.keys() == declared.keys()
    assert {name for name in declared if tested[name] != declared[name]} == {"torch"}


def test_the_commands_of_the_readme_exist() -> None:
    for target in ("demo", "test", "check", "slow"):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_no_host_of_a_package_registry_is_named() -> None:
    """What is installed from where is the installing machine's own setting."""
    hosts = r"pypi\.(org|io)|pythonhosted\.org|npmjs\.(org|com)|--(extra-)?index-url|find-links"
    child = subprocess.run(
        ["git", "grep", "-nIE", hosts, "--", ".", ":!tests/test_house.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert child.stdout == ""
