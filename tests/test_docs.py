"""What README and docs show: links that lead somewhere, commands and settings that exist."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from loraloom.cli import Parser, find_commands
from loraloom.hydra.arguments import read_arguments
from loraloom.hydra.composer import Composer
from loraloom.hydra.job import Job
from loraloom.hydra.settings import read_schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGEST = 450_000  # bytes of an image: a clone stays small


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """The targets of a page's links and images, without those on the web."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_every_page_is_in_the_index() -> None:
    index = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in links(ROOT / "docs" / "README.md")}
    assert set((ROOT / "docs").glob("*.md")) - index - {ROOT / "docs" / "README.md"} == set()


def test_every_image_is_shown_and_small() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    images = [*(ROOT / "docs").rglob("*.png")]
    assert [named(image) for image in images if image not in shown or image.stat().st_size > LARGEST] == []


OPEN = (
    "...",
    "<TAB>",
    "--config-dir",
    "--from-kohya",
    "--from-onetrainer",
)  # commands that are not whole, or have files of the reader's own


def commands() -> list[tuple[str, list[str]]]:
    """(page, words after `loraloom`) of every command in a shell block, and of those in inline code."""
    found: list[tuple[str, list[str]]] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`(loraloom [^`]+=[^`]+)`", text.replace("```", ""))
        complete = [line for line in lines if line.startswith("loraloom ") and not any(part in line for part in OPEN)]
        words = [shlex.split(line, comments=True) for line in complete]
        found += [(named(page), one[1:]) for one in words]
    return found


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: " ".join(value)[:80] if isinstance(value, list) else value)
def test_every_command_is_understood(page: str, words: list[str]) -> None:
    command = find_commands()[words[0]]
    if hasattr(command, "job") and words[1:2] != ["reproduce"]:
        job: Job[object] = command.job()
        Composer(job, read_arguments(job.name, words[1:], synonyms=job.synonyms)).check()
    elif hasattr(command, "add_parser"):
        parser = Parser(prog="loraloom")
        command.add_parser(parser.add_subparsers(required=True))
        assert isinstance(parser.parse_args(words), argparse.Namespace)


TABLES = {"training.md": "train", "grids.md": "grid", "merging.md": "merge"}


@pytest.mark.parametrize("page", TABLES)
def test_every_setting_of_the_tables_for_users_of_other_tools_exists(page: str) -> None:
    """The second column of `| sd-scripts | here |`: each piece of inline code is a setting, alone or with a value."""
    job = find_commands()[TABLES[page]].job()
    schema = read_schema(job.schema)
    known = {*schema.settings, *schema.sections, *job.synonyms, *Composer(job, read_arguments(job.name, [])).presets.groups}
    rows = re.findall(r"^\|[^|]+\|([^|]+)\|$", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = [re.split(r": (?=(?:[^`]*`[^`]*`)*[^`]*$)", row)[0] for row in rows]  # what follows a colon explains
    words = [word for cell in cells for code in re.findall(r"`([^`]+)`", cell) for word in shlex.split(code)]
    settings = [word.partition("=")[0] for word in words]
    assert len(settings) > 5
    assert [name for name in settings if name not in known] == []
