"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import TOKEN, Serve, Served

from inception.data.csv_text import unprotected

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


def explained(page: Any) -> None:
    page.wait_for_selector("#why-answer:not([hidden])")
    page.wait_for_function("() => document.getElementById('why-seen').naturalWidth > 0")


def test_the_map_lies_over_the_image_and_can_be_weakened(served: Served, open_page, pictures):
    page = open_page(served)
    page.set_input_files("#files", pictures[0])
    explained(page)
    size = page.eval_on_selector("#why-map", "map => [map.naturalWidth, map.naturalHeight]")
    assert size == [32, 32]  # what the network sees, not the file
    boxes = [page.locator(name).bounding_box() for name in ("#why-seen", "#why-map")]
    assert boxes[0] == boxes[1]
    label = served.ask("POST", "/explain", pictures[0].read_bytes()).json()["target"]["label"]
    told = f"{pictures[0].name} as the network sees it, under the map for {label}."
    assert page.get_attribute("#why-seen", "alt").startswith(told)
    before = float(page.eval_on_selector("#why-map", "map => map.style.opacity"))
    page.focus("#why-strength")
    page.keyboard.press("ArrowLeft")
    assert float(page.eval_on_selector("#why-map", "map => map.style.opacity")) < before
    page.focus("#why-shown")
    page.keyboard.press("Space")
    assert page.is_hidden("#why-map") and page.is_visible("#why-seen")


def test_another_class_and_method_are_asked_for(served: Served, open_page, pictures):
    page = open_page(served)
    page.set_input_files("#files", pictures[0])
    explained(page)
    labels = page.locator("#why-target option").all_inner_texts()
    assert labels[0] in page.inner_text("#why-status")
    page.select_option("#why-target", label=labels[1])
    page.wait_for_function(
        "(label) => document.getElementById('why-legend').textContent.includes(label)", arg=labels[1]
    )
    page.select_option("#why-method", "occlusion")
    page.wait_for_function("() => document.getElementById('why-legend').textContent.startsWith('Red')")
    page.click("#language")
    assert "红色" in page.inner_text("#why-legend")
    assert page.locator("#why-method option").last.inner_text() == "遮挡法"
    assert page.input_value("#why-method") == "occlusion"


def test_branches_of_every_module_are_a_table(served: Served, open_page, pictures):
    page = open_page(served)
    page.set_input_files("#files", pictures[0])
    explained(page)
    heads = page.locator("#branch-heads th").all_inner_texts()
    assert heads == ["Module", "1x1", "3x3", "5x5", "pool"]
    answer = served.ask("POST", "/explain", pictures[0].read_bytes()).json()
    rows = [row.split() for row in page.locator("#branch-rows tr").all_inner_texts()]
    assert [row[0] for row in rows] == [module["module"] for module in answer["modules"]]
    for row, module in zip(rows, answer["modules"], strict=True):
        shares = [100 * branch["gradient"] for branch in module["branches"]]
        assert [int(cell.strip("%")) for cell in row[1:]] == pytest.approx(shares, abs=0.51)
    widths = page.eval_on_selector_all("#branch-rows .share", "all => all.map(one => one.offsetWidth)")
    strong = page.locator("#branch-rows tr").first.locator("strong").count()
    assert len(widths) == 36 and strong >= 1
    assert "Over all modules" in page.inner_text("#branch-sum")


def test_images_of_a_batch_are_explained_when_asked(served: Served, open_page, pictures):
    page = open_page(served)
    page.set_input_files("#files", pictures)
    page.wait_for_function("() => document.getElementById('csv').disabled === false")
    assert page.is_hidden("#why-answer")
    page.click("#why-ask")
    explained(page)
    page.locator("#rows button").nth(1).click()
    assert page.is_hidden("#why-answer") and page.is_visible("#why-ask")
    page.locator("#rows button").nth(0).click()
    assert page.is_visible("#why-answer")


def test_explanations_are_hidden_where_there_are_none(serve: Serve, bundle_path, open_page, pictures):
    page = open_page(serve(bundle_path, "--no-explain"))
    page.set_input_files("#files", pictures[0])
    assert title(page).endswith("%")
    assert page.is_hidden("#why")


def test_examples_are_at_hand(served: Served, open_page):
    page = open_page(served)
    for name in ("temple.jpg", "flower.jpg", "digit.png"):
        page.click(f"[data-example={name.split('.')[0]}]")
        page.wait_for_function(
            "(name) => document.getElementById('preview-name').textContent === name", arg=name
        )
        assert title(page).endswith("%")
        assert page.eval_on_selector("#preview", "image => image.naturalWidth") > 100


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


def test_no_cell_of_the_csv_is_a_formula(served: Served, open_page, pictures, tmp_path):
    page = open_page(served)
    files = [tmp_path / name for name in ("=1+1.png", "-2+3.png", "'@a.png", "'tis.png")]
    for file in files:
        file.write_bytes(pictures[0].read_bytes()[:60])
    page.set_input_files("#files", files)
    page.wait_for_function("() => document.getElementById('csv').disabled === false")
    with page.expect_download() as download:
        page.click("#csv")
    lines = Path(download.value.path()).read_text("utf-8-sig").splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["'=1+1.png", "'-2+3.png", "''@a.png", "'tis.png"]
    assert [unprotected(line.split(",")[0]) for line in lines] == [file.name for file in files]


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
    page.click("#why-ask")
    explained(page)
    page.evaluate("document.querySelector('#why-target option').textContent = 'a long label '.repeat(9)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
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
