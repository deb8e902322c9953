from pathlib import Path

import pytest

from registry.detect.model_card import card_licence
from registry.home import pocket_dir, pocket_lines_dir
from registry.store import Store

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: openrail++\ntags: [a]\n---\n# A model\n", "openrail++"),
        ("---\ntags: [a]\nlicense: 'cc-by-nc-4.0'\n---\n", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: flux-1-dev-non-commercial-license\n---\n", "flux-1-dev-non-commercial-license"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("---\nlicense: [a: b\n---\n", None),
        ("---\nlicense: mit\nand no end", None),
        ("# A model\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_head_of_a_card_names_the_licence(text: str, licence: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert card_licence(tmp_path) == licence


def test_a_folder_without_a_card_names_none(tmp_path: Path) -> None:
    assert card_licence(tmp_path) is None


def test_what_the_project_carries_names_its_licence(tmp_path: Path) -> None:
    assert card_licence(pocket_dir()) == card_licence(pocket_lines_dir()) == card_licence(ROOT / "datasets" / "lines") == "apache-2.0"
    assert (card_licence(ROOT / "datasets" / "ink"), card_licence(ROOT / "datasets" / "blob")) == ("mit", "apache-2.0")
    record = Store(tmp_path / "home").add_dataset(ROOT / "datasets" / "ink", name="ink", sha256="a" * 64)
    assert record.licence == "mit"
