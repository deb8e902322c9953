"""The view in the address: a link opens the same cell in the same view, and whatever stands there is inert."""

from urllib.parse import quote

import pytest

from tests.infer.output.opened import Shown

pytestmark = pytest.mark.browser


def test_a_link_opens_the_same_comparison_in_the_same_view(report: Shown) -> None:
    page = report.page
    page.locator("#sides").click()
    page.get_by_label("Place of seed").select_option("select")
    page.get_by_label("seed", exact=True).select_option(label="2")
    page.get_by_role("group", name="Values of weight").get_by_text("0.5").click()
    page.locator("#pair").click()
    report.open("0,1,0")
    report.open("1,1,2")
    page.keyboard.press("4")
    page.get_by_label("Gain of the difference").press("ArrowRight")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#copy-link").click()
    page.get_by_text("Copied").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    page.get_by_text("Copied").wait_for(state="hidden")
    assert report.text("#copy-link") == "Copy link"
    page.goto("about:blank")
    page.goto(link)
    assert report.text("#caption").endswith("seed 2 · weight 1") and report.text("#gain-text") == "× 2"
    assert page.locator("#stage").get_attribute("data-mode") == "difference"
    page.keyboard.press("Escape")
    assert report.places() == ["0,1,0", "0,1,2", "1,1,0", "1,1,2"]


@pytest.mark.parametrize(
    "address",
    [
        "#<img src=x onerror=document.title='owned'>",
        "#rows=" + quote("<script>document.title='owned'</script>") + "&cell=javascript:1&a=__proto__&mode=constructor&view=toString",
        "#rows=0.0.99.1&columns=1.2&select=7-7.2-99&hide=0-99.9-0.x&tile=1e99&gain=-5&cell=0.0.9&a=9.9.9&order=0-0&score=3",
        "#rows=&columns=&cell=0.0&marked=1",
        "#" + "rows=0&" * 5000,
    ],
)
def test_what_stands_in_the_address_is_inert_and_what_does_not_fit_is_left_out(report: Shown, address: str) -> None:
    report.go(address)
    report.page.reload()
    assert report.page.title() == 'a "grid" </title><b>' and report.page.locator(".cell").count() >= 1
    assert not report.page.locator("#viewer").is_visible() and report.page.locator("#grid img[src=x]").count() == 0


def test_the_back_button_and_a_typed_address_change_the_view(report: Shown) -> None:
    report.page.evaluate("location.hash = 'rows=0&columns=2&select=1-1&cell=0.1.2'")
    report.page.wait_for_function("() => document.getElementById('viewer').open")
    assert report.text("#caption") == "prompt a cat · seed 2 · weight 1"
