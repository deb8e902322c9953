"""Who the Studio answers: whoever has the token, under its own Host; what changes something, from its own page alone."""

import json

import pytest

from tests.loraloom.studio.opened import Served


def test_the_page_answers_with_its_policy(served: Served) -> None:
    status, headers, body = served.raw("GET", f"/{served.token}/")
    assert status == 200 and b"LoRA Loom" in body
    assert (
        "default-src 'none'" in headers["Content-Security-Policy"]
        and "'unsafe-inline'" not in headers["Content-Security-Policy"].split("style-src")[0]
    )
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Server"] == "loraloom"


@pytest.mark.parametrize("path", ["/", "/wrong/", "/wrong/api/studio", "//", "/%00/", "/TOKEN"], ids=str)
def test_without_the_token_there_is_nothing(served: Served, path: str) -> None:
    assert served.raw("GET", path.replace("TOKEN", served.token))[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": "evil.example:8000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_hosts_and_origins_are_refused(served: Served, headers: dict[str, str]) -> None:
    assert served.raw("GET", f"/{served.token}/api/studio", headers=headers)[0] == 404


def test_a_change_needs_the_origin(served: Served) -> None:
    path, body, kind = f"/{served.token}/api/nothing", json.dumps({}).encode(), {"Content-Type": "application/json"}
    assert served.raw("POST", path, body, kind)[2] == b'{"error":"There is nothing here.","faults":[]}'
    assert served.raw("POST", path, body, {**kind, "Origin": f"http://{served.host}"})[0] == 404


def test_a_tunnelled_port_is_answered(served: Served) -> None:
    assert served.raw("GET", f"/{served.token}/api/studio", headers={"Host": "localhost:8765"})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "../server.py",
        "..%2fserver.py",
        "report/../page.js",
        "shell.js/..",
        "runs/../../server.py",
        "studio.html",
        "nothing.js",
        "%00.js",
        f"{'a' * 300}.js",
    ],
    ids=lambda path: path[:30],
)
def test_only_files_of_the_page_are_served(served: Served, path: str) -> None:
    assert served.raw("GET", f"/{served.token}/app/{path}")[0] == 404


@pytest.mark.parametrize("path", ["shell.js", "api.js", "parts.js", "events.js", "studio.css", "report/dom.js", "report/report.css"])
def test_files_of_the_page_are_served(served: Served, path: str) -> None:
    assert served.raw("GET", f"/{served.token}/app/{path}")[0] == 200


def test_images_of_other_places_are_refused(served: Served, tmp_path_factory: pytest.TempPathFactory) -> None:
    from PIL import Image

    outside = tmp_path_factory.mktemp("outside") / "a.png"
    Image.new("RGB", (300, 200), "red").save(outside)
    inside = served.studio.folder / "b.png"
    inside.write_bytes(outside.read_bytes())
    (served.studio.folder / "link.png").symlink_to(outside)
    assert served.get("image", path=outside)[0] == 400
    assert served.get("image", path=served.studio.folder / "link.png")[0] == 400
    assert served.get("image", path=served.studio.folder / "none.png")[0] == 404
    status, headers, body = served.raw("GET", f"/{served.token}/api/image?path={inside}&side=96")
    assert status == 200 and headers["Content-Type"] == "image/webp" and body[:4] == b"RIFF"
    assert served.raw("GET", f"/{served.token}/api/image?path={inside}")[2] == inside.read_bytes()


def test_a_thumbnail_is_sent_where_it_cannot_be_kept(served: Served) -> None:
    from PIL import Image

    image = served.studio.folder / "a.png"
    Image.new("RGB", (300, 200), "red").save(image)
    served.studio.home.mkdir(exist_ok=True)
    (served.studio.home / "cache").write_text("a file")
    for _ in range(2):
        status, _, body = served.raw("GET", f"/{served.token}/api/image?path={image}&side=96")
        assert status == 200 and body[:4] == b"RIFF"


def test_a_long_address_is_read(served: Served) -> None:
    assert "no such file" in served.get("image", path="猫" * 1300)[1]["error"]
