"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import TOKEN, Served

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for all tests."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Open a server's page; afterwards nothing may have been logged as an error or asked of another host."""
    contexts, complaints, hosts = [], [], set()

    def open_one(server: Served, path: str = "/", **options: Any) -> Any:
        context = browser.new_context(**{"locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None
        )
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.goto(server.url + path.lstrip("/"))
        page.wait_for_function("() => document.getElementById('about').textContent !== ''")
        hosts.discard("")  # blob: addresses
        assert hosts == {f"127.0.0.1:{server.port}"}
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def drop(page: Any, name: str, data: bytes) -> None:
    """Drop a file on the page as a person does."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [name, list(data)],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def title(page: Any) -> str:
    page.wait_for_function(
        r"() => /%$|No answer|没有结果/.test(document.getElementById('answer-title').textContent)"
    )
    return str(page.inner_text("#answer-title"))


def test_a_dropped_picture_is_answered(served: Served, open_page, pictures):
    page = open_page(served)
    drop(page, "jade.png", pictures[1].read_bytes())
    expected = served.ask("POST", "/classify", pictures[1].read_bytes()).json()["results"][0]["top"]
    assert title(page) == f"{expected[0]['label']}, {100 * expected[0]['probability']:.1f}%"
    assert page.locator("#top li").count() == 3
    widths = page.eval_on_selector_all("#top .bar", "bars => bars.map(bar => bar.offsetWidth)")
    assert widths == sorted(widths, reverse=True)
    assert "ms in all" in page.inner_text("#timing")
    # What a screen reader is told.
    assert page.inner_text("#status") == title(page)
    assert page.get_attribute("#preview", "alt") == "jade.png"


def test_auxiliary_heads_give_their_opinion(served: Served, open_page, pictures):
    page = open_page(served)
    page.set_input_files("#files", pictures[0])
    title(page)
    assert page.locator("#heads h4").all_inner_texts() == ["After inception4a", "After inception4d"]
    answer = served.ask("POST", "/classify?auxiliary=1", pictures[0].read_bytes()).json()["results"][0]
    shown = page.locator("#head-list ol").nth(1).locator("li").first.inner_text()
    assert shown.startswith(answer["auxiliary"][1]["top"][0]["label"])


def test_a_pasted_picture_is_answered(served: Served, open_page, pictures):
    page = open_page(served)
    page.evaluate(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "image.png", {type: "image/png"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer}));
        }""",
        list(pictures[2].read_bytes()),
    )
    assert title(page).endswith("%")


def test_errors_are_shown_in_both_languages(served: Served, open_page):
    page = open_page(served)
    drop(page, "notes.txt", b"no image")
    assert title(page) == "No answer"
    assert "not an image in a known format" in page.inner_text("#problem")
    assert page.get_attribute("#problem", "role") == "alert"
    page.click("#language")
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert title(page) == "没有结果"
    assert "不是可识别的图片格式" in page.inner_text("#problem")
    page.reload()
    assert page.inner_text("#drop-title") == "图片里是什么？"  # remembered


def test_language_follows_the_browser(served: Served, open_page):
    page = open_page(served, locale="zh-CN")
    assert page.inner_text("#choose") == "选择图片"
    assert page.locator("[data-word]").evaluate_all("all => all.every(one => one.textContent)")


def test_a_batch_becomes_a_table_and_a_csv(served: Served, open_page, pictures, tmp_path):
    page = open_page(served)
    broken = tmp_path / 'broken, "one".png'
    broken.write_bytes(pictures[0].read_bytes()[:60])
    page.set_input_files("#files", [*pictures, broken])
    page.wait_for_function("() => document.getElementById('csv').disabled === false")
    assert page.inner_text("#table-title") == "4 of 4 images"
    assert page.inner_text("#status") == "All 4 images are done; 1 without an answer."
    assert page.locator("#rows tr").count() == 4
    assert "damaged" in page.locator("#rows tr").nth(3).inner_text()
    page.locator("#rows button").nth(2).focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#preview-name") == pictures[2].name
    with page.expect_download() as download:
        page.click("#csv")
    lines = Path(download.value.path()).read_text("utf-8-sig").splitlines()
    assert lines[0].startswith("path,label1,probability1,") and lines[0].endswith(",error")
    assert len(lines) == 5
    assert lines[4].startswith('"broken, ""one"".png",,')
    page.click("#clear")
    assert page.is_hidden("#table") and page.is_hidden("#answer")


def test_the_other_model_is_asked_when_it_is_chosen(served: Served, open_page, pictures):
    page = open_page(served)
    page.set_input_files("#files", pictures[0])
    title(page)
    with page.expect_request(lambda request: "model=second" in request.url):
        page.select_option("#model", "second")
    assert title(page).endswith("%")


def test_everything_is_reached_by_keyboard(served: Served, open_page):
    page = open_page(served)
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[:6] == ["skip", "model", "language", "choose", "photo", "paste"]
    with page.expect_file_chooser() as chooser:
        page.focus("#choose")
        page.keyboard.press("Enter")
    assert chooser.value.is_multiple()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_in_light_and_dark(served: Served, open_page, pictures, scheme):
    page = open_page(served, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.set_input_files("#files", pictures)
    page.wait_for_function("() => document.getElementById('csv').disabled === false")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 27)") == (scheme == "dark")
    sizes = page.eval_on_selector_all("#drop button", "all => all.map(one => one.offsetHeight)")
    assert min(sizes) >= 44  # what a finger hits


def test_a_token_is_asked_for_and_used(guarded: Served, browser, pictures):
    page = browser.new_context(locale="en-GB").new_page()
    page.goto(guarded.url)
    page.wait_for_selector("#token-form:not([hidden])")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem") == "The token is not right."
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-form", state="hidden")
    page.set_input_files("#files", pictures[0])
    assert title(page).endswith("%")
