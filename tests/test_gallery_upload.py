"""Files that are given to the gallery, in a real browser."""

import re
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from browsing import HOST, Traffic
from gallery_pages import require_accessible
from playwright.sync_api import expect
from running import wait_until

ALL_FILES = "All files"
AT_ONCE = 3


def content_of(name):
    """The bytes of a photograph that no other name has."""
    return photographs.encode(photographs.picture(), "jpg", comment=name.encode())


def photograph_file(name):
    return {"name": name, "mimeType": "image/jpeg", "buffer": content_of(name)}


@pytest.fixture(scope="module")
def service(service_with, blip):
    """A service of its own: no other test has uploaded these photographs there."""
    return service_with(BLIP_SERVICE_URL=blip.url, AUTH="off", ALLOWED_HOSTS=HOST)


@pytest.fixture(scope="module")
def checked_context(browser, service):
    """Pages at a loopback address, which may compute hashes, and which report no error."""
    context = browser.new_context()
    traffic = Traffic(context, urlsplit(service.url).netloc)
    yield context
    traffic.require_only_ours()
    context.close()


@pytest.fixture(scope="module")
def checked_page(checked_context):
    return checked_context.new_page()


@pytest.fixture
def page(checked_page, service):
    checked_page.goto(f"{service.url}/gallery")
    expect(checked_page.get_by_role("button", name="Upload", exact=True)).to_be_visible()
    return checked_page


@pytest.fixture
def faulty_page(browser, service):
    """A page for requests that fail, of which a browser reports each as an error."""
    page = browser.new_page()
    page.goto(f"{service.url}/gallery")
    yield page
    page.close()


def choose(page, *files):
    """Choose files in the dialog of the browser."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload", exact=True).click()
    chooser.value.set_files([*files])


def drop(page, event, *names):
    """Let files fall onto the page, or be pasted."""
    contents = [[name, [*content_of(name)]] for name in names]
    page.evaluate(
        """([name, files]) => {
            const data = new DataTransfer();
            for (const [name, bytes] of files) {
                data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
            }
            const init = {bubbles: true, cancelable: true};
            document.body.dispatchEvent(
                name === "paste"
                    ? new ClipboardEvent(name, {...init, clipboardData: data})
                    : new DragEvent(name, {...init, dataTransfer: data}));
        }""",
        [event, contents],
    )


def region(page):
    return page.get_by_role("region", name="Uploads")


def row(page, name):
    return region(page).get_by_role("listitem").filter(has_text=name)


def names_of(service, search):
    listed = requests.get(f"{service.url}/api/uploads", {"q": search, "limit": 100}, timeout=60)
    return sorted(upload["original_name"] for upload in listed.json()["data"])


def hold_uploads(page):
    """Keep requests from being sent; returns those that are held."""
    held = []
    page.route(re.compile("/api/upload\\?"), lambda route: held.append(route))
    return held


def test_chosen_files_are_uploaded_and_the_page_is_told(page, service):
    page.evaluate(
        "() => { window.told = 0; document.addEventListener('uploadschange', () => told++) }"
    )
    choose(page, photograph_file("chosenone.jpg"), photograph_file("chosentwo.jpg"))
    expect(region(page).get_by_role("status")).to_have_text("2 of 2 uploaded")
    assert names_of(service, "name:chosenone") == ["chosenone.jpg"]
    page.wait_for_function("() => told > 0")
    row(page, "chosenone.jpg").get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("upload="))
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    region(page).get_by_role("button", name="Close").click()
    expect(region(page)).to_be_hidden()


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_files_are_dropped_or_pasted(page, service, event):
    drop(page, event, f"{event}ped.jpg")
    expect(region(page).get_by_role("status")).to_have_text("1 of 1 uploaded")
    assert names_of(service, f"name:{event}ped") == [f"{event}ped.jpg"]


def test_of_a_text_with_a_picture_a_field_takes_the_text(page):
    page.get_by_role("combobox", name="Search images").evaluate(
        """field => {
            const data = new DataTransfer();
            data.setData("text/plain", "a text");
            data.items.add(new File(["a picture of it"], "text.png", {type: "image/png"}));
            const init = {bubbles: true, cancelable: true, clipboardData: data};
            field.dispatchEvent(new ClipboardEvent("paste", init));
        }"""
    )
    drop(page, "paste", "pasted alone.jpg")
    expect(region(page).get_by_role("status")).to_have_text("1 of 1 uploaded")


def test_a_folder_is_dropped_with_all_that_is_in_it(page, service, tmp_path):
    (tmp_path / "holiday" / "beach").mkdir(parents=True)
    for name in ("above.jpg", "beach/below.jpg"):
        (tmp_path / "holiday" / name).write_bytes(content_of(name))
    data = {"items": [], "files": [str(tmp_path / "holiday")], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for event in ("dragEnter", "dragOver", "drop"):
        place = {"type": event, "x": 200, "y": 200, "data": data}
        session.send("Input.dispatchDragEvent", place)
    expect(region(page).get_by_role("status")).to_have_text("2 of 2 uploaded")
    assert names_of(service, "name:above") == ["above.jpg"]
    assert names_of(service, "name:below") == ["below.jpg"]


def test_an_image_of_the_page_is_no_file_when_it_is_dragged(page):
    """A browser would give its bytes to the page as a file."""
    drop(page, "drop", "dragged.jpg")
    region(page).get_by_role("button", name="Close").click()
    page.evaluate(
        """() => document.addEventListener(
            "dragover", (event) => { window.dragged = [...event.dataTransfer.types]; })"""
    )
    page.locator(".tile a").first.hover()  # It has another name once it has a caption.
    page.mouse.down()
    page.mouse.move(500, 500, steps=3)
    page.wait_for_function("() => window.dragged")
    page.mouse.up()
    assert "Files" not in page.evaluate("() => window.dragged")


def test_it_shows_where_files_may_be_dropped(page):
    drop(page, "dragover", "over.jpg")
    expect(page.locator("body")).to_have_class("dropping")
    page.evaluate("() => document.body.dispatchEvent(new DragEvent('dragleave', {bubbles: true}))")
    expect(page.locator("body")).not_to_have_class("dropping")


def test_a_few_are_sent_at_once_with_a_bar_for_each_and_for_all(page, service):
    held = hold_uploads(page)
    choose(page, *(photograph_file(f"parallel{number}.jpg") for number in range(AT_ONCE + 2)))
    expect(region(page).get_by_role("listitem").get_by_role("progressbar")).to_have_count(AT_ONCE)
    expect(region(page).get_by_role("progressbar", name=ALL_FILES)).to_be_visible()
    wait_until(lambda: page.evaluate("1") and len(held) == AT_ONCE, 60)
    keys = {route.request.headers["idempotency-key"] for route in held}
    assert len(keys) == AT_ONCE
    page.unroute_all()
    expect(region(page).get_by_role("status")).to_have_text(
        f"{AT_ONCE + 2} of {AT_ONCE + 2} uploaded"
    )


def test_what_the_limits_forbid_is_said_before_it_is_sent(page, service):
    limits = requests.get(f"{service.url}/api/limits", timeout=60).json()
    page.route(
        "**/api/limits", lambda route: route.fulfill(json=limits | {"max_file_bytes": 100_000})
    )
    held = hold_uploads(page)
    pdf = {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4"}
    choose(page, pdf, {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": bytes(250_000)})
    expect(row(page, "notes.pdf")).to_contain_text("none of the image formats that are accepted: ")
    expect(row(page, "large.jpg")).to_contain_text(
        "The file has 0.3 MB; at most 0.1 MB are accepted."
    )
    expect(region(page).get_by_role("status")).to_have_text("0 of 2 uploaded, 2 not taken")
    require_accessible(page)
    assert held == []
    page.unroute_all()


def test_what_is_there_is_not_sent_again_not_even_after_the_page_was_left(page, service):
    file = photograph_file("known.jpg")
    choose(page, file)
    expect(region(page).get_by_role("status")).to_have_text("1 of 1 uploaded")
    page.reload()
    held = hold_uploads(page)
    choose(page, file | {"name": "copy.jpg"})
    expect(row(page, "copy.jpg")).to_contain_text("is there already")
    expect(region(page).get_by_role("status")).to_have_text("0 of 1 uploaded, 1 already there")
    assert held == []
    page.unroute_all()
    assert names_of(service, "name:copy") == []


def test_duplicates_are_told_apart_where_the_page_may_compute_no_hash(browser, service):
    page = browser.new_page()
    page.goto(f"http://{HOST}:{urlsplit(service.url).port}/gallery")
    assert page.evaluate("() => crypto.subtle === undefined")
    file = photograph_file("insecure.jpg")
    choose(page, file, file | {"name": "insecure-copy.jpg"})
    expect(region(page).get_by_role("status")).to_have_text("1 of 2 uploaded, 1 already there")
    page.close()


def test_an_error_is_told_in_words_and_spoils_no_other_file(faulty_page):
    broken = photographs.photograph()[:200]
    files = [{"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": broken}]
    choose(faulty_page, *files, photograph_file("whole.jpg"))
    expect(row(faulty_page, "broken.jpg")).to_contain_text("broken or incomplete")
    expect(row(faulty_page, "whole.jpg")).to_contain_text("uploaded")


def test_what_failed_is_tried_again_and_stored_once(faulty_page, service):

    def lose_the_answer(route):
        route.fetch()
        route.abort()

    faulty_page.route(re.compile("/api/upload\\?"), lose_the_answer, times=1)
    choose(faulty_page, photograph_file("again.jpg"))
    expect(row(faulty_page, "again.jpg")).to_contain_text("The service cannot be reached.")
    with faulty_page.expect_request("**/api/uploads/exists"):
        region(faulty_page).get_by_role("button", name="Try 1 again").click()
    expect(row(faulty_page, "again.jpg")).to_contain_text("is there already")
    assert names_of(service, "name:again") == ["again.jpg"]


def test_a_busy_service_is_given_the_time_that_it_asks_for(faulty_page):
    """It is the browser that answers so, once; the file is sent again without anybody's doing."""

    def too_busy(route):
        route.fulfill(status=503, headers={"Retry-After": "60"}, json={"detail": "Too busy."})

    faulty_page.clock.install()
    faulty_page.route(re.compile("/api/upload\\?"), too_busy, times=1)
    choose(faulty_page, photograph_file("busy.jpg"))
    expect(row(faulty_page, "busy.jpg")).to_contain_text("Too busy.")
    faulty_page.clock.fast_forward(61_000)
    expect(row(faulty_page, "busy.jpg")).to_contain_text("uploaded")


def test_a_page_that_uploads_asks_before_it_is_left(checked_context, service):
    page = checked_context.new_page()
    page.goto(f"{service.url}/gallery")
    hold_uploads(page)
    choose(page, photograph_file("leaving.jpg"))
    expect(row(page, "leaving.jpg").get_by_role("progressbar")).to_be_visible()
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    page.unroute_all()
    expect(region(page).get_by_role("status")).to_have_text("1 of 1 uploaded")
    with page.expect_event("close"):
        page.close(run_before_unload=True)
