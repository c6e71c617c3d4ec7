"""The grid of the gallery, in a real browser: rows, months, scrolling, news, keyboard, errors."""

import itertools
import re
from collections import Counter
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from browsing import Traffic
from clustr_plugins.palette import thumbhash
from gallery_pages import (
    SETTINGS,
    add_uploads,
    address_of,
    open_gallery,
    over_years,
    require_accessible,
)
from playwright.sync_api import Page, expect
from running import wait_until

COUNT = 2400
GAP = 4
STEP = 10_000  # pixels by which all is scrolled through
BOXES = """() => [...document.querySelectorAll(".month")].map(month => ({
    name: month.querySelector("h2")?.textContent,
    width: month.clientWidth,
    tiles: [...month.querySelectorAll(".tile")].map(tile => ({
        label: tile.querySelector("img").alt,
        ...tile.getBoundingClientRect().toJSON(),
    })),
}))"""

# The names of the images in the window below the header.
IN_WINDOW = """() => [...document.querySelectorAll(".tile")].filter(tile => {
    const box = tile.getBoundingClientRect();
    return box.bottom > 100 && box.top < innerHeight;
}).map(tile => tile.querySelector("img").alt)"""


@pytest.fixture(scope="module")
def web(web_with):
    """A web side with uploads of ten years."""
    web = web_with(processes=1, **SETTINGS)
    add_uploads(web, COUNT, over_years)
    return web


@pytest.fixture(scope="module")
def address(web):
    return address_of(web)


@pytest.fixture(scope="module")
def context(browser):
    context = browser.new_context(viewport={"width": 1300, "height": 1000}, locale="en-US")
    yield context
    context.close()


@pytest.fixture(scope="module")
def traffic(context, address):
    return Traffic(context, urlsplit(address).netloc)


@pytest.fixture(scope="module")
def loaded_page(context, traffic):
    return context.new_page()


@pytest.fixture
def page(loaded_page, traffic, address):
    """The gallery at its beginning; it must make no request to another host and report no error."""
    loaded_page.set_viewport_size({"width": 1300, "height": 1000})
    open_gallery(loaded_page, address)
    yield loaded_page
    loaded_page.goto("about:blank")  # It would ask a service that the next test breaks.
    traffic.require_only_ours()


def image(page: Page, number: int):
    return page.get_by_role("link", name=f"image number {number}", exact=True)


def months_by_name() -> Counter[str]:
    """How many uploads each month has, the newest first."""
    moments = (over_years(number)["taken_at"] for number in range(COUNT))
    return Counter(f"{moment:%B %Y}" for moment in moments)


@pytest.mark.parametrize("width", [360, 1300, 2560])
def test_rows_fill_the_width_and_the_last_one_of_a_month_is_not_stretched(page, width):
    page.set_viewport_size({"width": width, "height": 1000})
    first = wait_until(lambda: arranged_month(page), 60, "rows of the new width")
    rows = [list(row) for _, row in itertools.groupby(first["tiles"], key=lambda tile: tile["top"])]
    left = rows[0][0]["left"]
    for row in rows[:-1]:
        assert row[0]["left"] == left
        assert row[-1]["right"] - left == pytest.approx(first["width"], abs=1)
        assert len({tile["height"] for tile in row}) == 1
        for one, following in itertools.pairwise(row):
            assert following["left"] - one["right"] == GAP
    heights = [row[0]["height"] for row in rows]
    assert heights[-1] <= min(240, max(120, first["width"] / 6)) + 1
    assert max(heights) < 2 * min(heights)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def arranged_month(page: Page) -> dict | None:
    """The newest month, once its first row is as wide as the month is by now."""
    month, *_ = page.evaluate(BOXES)
    first = month["tiles"][0]
    right = max(tile["right"] for tile in month["tiles"] if tile["top"] == first["top"])
    return month if right - first["left"] == pytest.approx(month["width"], abs=1) else None


def test_placeholders_are_there_until_the_images_are(page, address):
    page.route("**/thumbnail?*", lambda _: None)  # They are held until nobody routes them.
    open_gallery(page, address)
    without = "() => document.querySelectorAll('.tile:not(:has(canvas))').length"
    assert page.evaluate(without) == 0
    page.unroute("**/thumbnail?*")
    expect(page.locator(".tile canvas")).to_have_count(0)


def test_images_that_did_not_come_are_asked_for_again(page, address):
    page.route("**/thumbnail?*", lambda route: route.fulfill(status=503))
    open_gallery(page, address)
    broken = page.locator(".tile img.broken")
    expect(broken.first).to_be_attached()
    page.unroute("**/thumbnail?*")
    page.evaluate("document.dispatchEvent(new Event('recovered'))")
    expect(broken).to_have_count(0)
    page.wait_for_function("() => document.querySelector('.tile img').naturalWidth > 0")


@pytest.mark.parametrize("name", ["cat", "coffee", "logo"])
def test_a_placeholder_looks_like_its_picture(page, name):
    small = photographs.picture(name, 32).convert("RGBA")
    drawn = page.evaluate(
        """async ([bytes, width, height]) => {
            const folder = document.querySelector("script[type=module]").src;
            const { decodeThumbhash } = await import(new URL("thumbhash.js", folder));
            const text = btoa(String.fromCharCode(...bytes));
            return [...decodeThumbhash(text, width, height)];
        }""",
        [list(thumbhash(small)), *small.size],
    )
    differences = [
        abs(one - other)
        for at, (one, other) in enumerate(zip(small.tobytes(), drawn, strict=True))
        if small.tobytes()[at // 4 * 4 + 3] > 128
    ]
    assert sum(differences) / len(differences) < 40


def test_months_are_headings_over_their_images(page):
    counts = months_by_name()
    shown = page.evaluate(BOXES)
    assert [month["name"] for month in shown] == list(counts)[: len(shown)]
    assert len(shown) >= 2
    numbers = iter(range(COUNT))
    for month in shown[:2]:
        wanted = [f"image number {next(numbers)}" for _ in range(counts[month["name"]])]
        labels = [tile["label"] for tile in month["tiles"]]
        assert labels == wanted[: len(labels)]
        assert len(labels) > 10


def test_the_elements_stay_few_while_all_are_scrolled_through(page):
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height > 10 * STEP
    counts = []

    def shown_further_down():
        page.evaluate(f"scrollBy(0, {STEP})")
        shown = wait_until(lambda: page.evaluate(IN_WINDOW), 60)
        counts.append(page.locator(".tile").count())
        return shown

    wait_until(lambda: f"image number {COUNT - 1}" in shown_further_down(), 300, "the last image")
    assert len(counts) > 8
    assert 20 < max(counts) < 250
    assert page.evaluate("document.querySelectorAll('#grid *').length") < 2000


def test_a_month_is_jumped_to(page):
    numbers = [n for n in range(COUNT) if f"{over_years(n)['taken_at']:%Y-%m}" == "2019-03"]
    page.get_by_label("Jump to").select_option("2019-03")
    expect(page.get_by_role("heading", name="March 2019")).to_be_in_viewport()
    expect(image(page, numbers[0])).to_be_in_viewport()
    expect(page.get_by_label("Jump to")).to_have_value("2019-03")


def test_a_slider_leads_through_the_months(page):
    months = list(months_by_name())
    slider = page.get_by_role("slider", name="Month")
    expect(slider).to_have_attribute("aria-valuetext", months[0])
    slider.focus()
    page.keyboard.press("ArrowDown")
    expect(slider).to_have_attribute("aria-valuetext", months[1])
    expect(page.get_by_role("heading", name=months[1])).to_be_in_viewport()
    slider.fill(str(months.index("March 2019")))
    expect(page.get_by_role("heading", name="March 2019")).to_be_in_viewport()
    page.keyboard.press("End")
    expect(image(page, COUNT - 1)).to_be_in_viewport()
    page.set_viewport_size({"width": 360, "height": 1000})
    expect(slider).to_be_hidden()


def test_all_of_a_grid_is_reached_that_is_higher_than_pages_can_be(page, address, web):
    """It is said that there are very many in the newest month."""
    timeline = requests.get(f"{web.url}/api/timeline", timeout=60).json()
    timeline["data"][0]["count"] = 2_000_000
    page.route("**/api/timeline?*", lambda route: route.fulfill(json=timeline))
    try:
        open_gallery(page, address)
        height = page.evaluate("document.documentElement.scrollHeight")
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        last = image(page, COUNT - 1)
        expect(last).to_be_in_viewport()
        bottom = last.bounding_box()["y"]
        page.mouse.move(600, 500)
        page.mouse.wheel(0, -400)
        wait_until(lambda: last.bounding_box()["y"] == pytest.approx(bottom + 400, abs=2), 60)
        page.get_by_label("Jump to").select_option("2019-03")
        first = next(n for n in range(COUNT) if f"{over_years(n)['taken_at']:%Y-%m}" == "2019-03")
        expect(image(page, first)).to_be_in_viewport()
        assert page.evaluate("document.documentElement.scrollHeight") <= height < 10_000_000
        page.evaluate("scrollTo(0, 0)")
        expect(image(page, 0)).to_be_in_viewport()
    finally:
        page.unroute("**/api/timeline?*")


def test_what_is_in_the_window_stays_there_when_heights_above_change(page, web):
    """Months above it are loaded, which were guessed; and uploads come above it."""
    page.get_by_label("Jump to").select_option("2020-05")
    first = next(n for n in range(COUNT) if f"{over_years(n)['taken_at']:%Y-%m}" == "2020-05")
    tile = image(page, first)
    expect(tile).to_be_in_viewport()
    top = tile.bounding_box()["y"]
    expect(page.get_by_role("heading", name="June 2020")).to_be_attached()
    expect(image(page, first - 1)).to_be_attached()
    assert tile.bounding_box()["y"] == pytest.approx(top, abs=2)
    height = page.evaluate("document.documentElement.scrollHeight")
    add_uploads(web, 40, lambda number: over_years(0) | {"caption": f"newer {number}"})
    page.evaluate("document.dispatchEvent(new Event('uploadschange'))")
    try:
        higher = "document.documentElement.scrollHeight"
        wait_until(lambda: page.evaluate(higher) > height + 200, 60)
        assert tile.bounding_box()["y"] == pytest.approx(top, abs=2)
    finally:
        web.workshop.collection.delete_many({"caption": {"$regex": "^newer"}})


def test_new_uploads_appear_by_themselves(page, web):
    content = photographs.photograph("jpg", "coffee")
    files = {"files": ("new one.jpg", content)}
    answer = requests.post(f"{web.url}/api/upload", files=files, timeout=60).json()
    new = page.get_by_role("link", name="new one.jpg")
    expect(new).to_be_in_viewport()
    upload_id = answer["data"][0]["id"]
    requests.delete(f"{web.url}/api/uploads/{upload_id}?permanently=true", timeout=60)
    expect(new).to_have_count(0)


def test_asking_again_is_one_request(page):
    """Once all is there that was asked for when the page was opened."""
    asked = []

    def note(request):
        asked.append(urlsplit(request.url).path)

    def asked_since_the_last_time():
        asked.clear()
        with page.expect_request("**/api/timeline?*"):
            pass
        return asked

    page.on("request", note)
    wait_until(lambda: asked_since_the_last_time() == ["/api/timeline"], 60)
    page.remove_listener("request", note)


@pytest.mark.parametrize(
    ("fragment", "refreshed"), [("", "**/api/timeline?*"), ("panel=service", "**/api/health")]
)
def test_a_page_that_is_not_seen_asks_for_nothing(browser, address, fragment, refreshed):
    page = browser.new_page()
    page.clock.install()
    open_gallery(page, address, fragment)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    show = """state => {
        Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with page.expect_response(refreshed):
        page.clock.run_for(5_000)
    page.evaluate(show, "hidden")

    def asked_in_a_minute():
        asked.clear()
        page.clock.run_for(60_000)
        assert page.evaluate("document.visibilityState") == "hidden"
        return asked

    # The answer to what was asked before may lead to more.
    wait_until(lambda: not asked_in_a_minute(), 60)
    for news in (lambda: page.evaluate(show, "visible"), lambda: page.clock.run_for(5_000)):
        with page.expect_response(refreshed):
            news()
    page.close()


def test_images_are_reached_and_chosen_with_the_keyboard(page):
    image(page, 0).focus()
    page.keyboard.press("ArrowRight")
    expect(image(page, 1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(image(page, 1)).not_to_be_focused()
    below = page.evaluate("document.activeElement.closest('.tile').getBoundingClientRect().top")
    assert below > image(page, 0).bounding_box()["y"]
    page.keyboard.press("ArrowUp")
    expect(image(page, 1)).to_be_focused()
    page.keyboard.press("Space")
    expect(page.get_by_label("Choose image number 1", exact=True)).to_be_checked()
    for count in (2, 3):
        page.keyboard.press("Shift+ArrowRight")
        expect(page.locator(".tile input:checked")).to_have_count(count)
    expect(page.locator(".tile a[tabindex='0']")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("upload="))


def test_a_range_is_chosen_with_shift(page):
    page.get_by_label("Choose image number 2", exact=True).click()
    page.get_by_label("Choose image number 9", exact=True).click(modifiers=["Shift"])
    expect(page.locator(".tile input:checked")).to_have_count(8)
    page.get_by_label("Choose image number 4", exact=True).click()
    expect(page.locator(".tile input:checked")).to_have_count(7)


def test_a_range_reaches_over_what_was_never_loaded(page, traffic):
    page.get_by_label("Choose image number 2", exact=True).click()
    page.get_by_label("Jump to").select_option("2023-10")
    last = next(n for n in range(COUNT) if f"{over_years(n)['taken_at']:%Y-%m}" == "2023-10")
    checkbox = page.get_by_label(f"Choose image number {last}", exact=True)
    expect(checkbox).to_be_visible()
    page.route("**/api/uploads?*", lambda route: route.abort())
    checkbox.click(modifiers=["Shift"])
    expect(page.locator("#messages")).to_contain_text("The service cannot be reached.")
    expect(checkbox).not_to_be_checked()
    page.unroute("**/api/uploads?*")
    traffic.forget_error("ERR_FAILED")
    checkbox.click(modifiers=["Shift"])
    bar = page.get_by_role("region", name="Chosen images")
    expect(bar.get_by_role("status")).to_have_text(f"{last - 1} chosen")
    expect(checkbox).to_be_checked()


@pytest.mark.parametrize("meanwhile", ["Choose none", "another search"])
def test_a_range_is_not_chosen_when_something_else_is_meanwhile(page, meanwhile):
    page.get_by_label("Choose image number 2", exact=True).click()
    page.get_by_label("Jump to").select_option("2023-10")
    last = next(n for n in range(COUNT) if f"{over_years(n)['taken_at']:%Y-%m}" == "2023-10")
    checkbox = page.get_by_label(f"Choose image number {last}", exact=True)
    expect(checkbox).to_be_visible()
    held = []
    page.route("**/api/uploads?*", lambda route: held.append(route))
    with page.expect_request("**/api/uploads?*"):
        checkbox.click(modifiers=["Shift"])
    if meanwhile == "Choose none":
        page.get_by_role("button", name="Choose none").click()
    else:
        page.evaluate("location.hash = 'q=photograph'")
    for route in held:
        route.continue_()
    page.unroute("**/api/uploads?*")
    expect(page.locator("#messages")).to_contain_text("Something else was chosen meanwhile")
    expect(page.get_by_role("region", name="Chosen images")).to_be_hidden()


def test_a_range_begins_anew_where_other_images_are_shown(page, address):
    open_gallery(page, address, "q=photograph")
    page.locator(".tile input").first.click()
    page.evaluate("location.hash = ''")
    expect(page.locator(".month h2").first).to_be_visible()
    page.get_by_label("Choose image number 9", exact=True).click(modifiers=["Shift"])
    bar = page.get_by_role("region", name="Chosen images")
    expect(bar.get_by_role("status")).to_have_text("1 chosen")


def test_a_range_of_more_than_an_order_can_name_is_refused_in_words(page, address, web):
    timeline = requests.get(f"{web.url}/api/timeline", timeout=10).json()
    timeline["data"][0]["count"] = 20_000
    page.route("**/api/timeline?*", lambda route: route.fulfill(json=timeline))
    open_gallery(page, address)
    page.get_by_label("Choose image number 2", exact=True).click()
    page.get_by_label("Jump to").select_option("2023-10")
    last = next(n for n in range(COUNT) if f"{over_years(n)['taken_at']:%Y-%m}" == "2023-10")
    checkbox = page.get_by_label(f"Choose image number {last}", exact=True)
    checkbox.click(modifiers=["Shift"])
    expect(page.locator("#messages")).to_contain_text("At most 10,000 images can be chosen so")
    expect(checkbox).not_to_be_checked()
    page.unroute("**/api/timeline?*")


def test_an_image_that_was_opened_by_its_address_has_the_ones_beside_it(page, address, web):
    document = web.workshop.collection.find_one({"caption": "image number 1500"})
    open_gallery(page, address, f"upload={document['_id']}")
    viewer = page.get_by_role("dialog", name="image number 1500")
    expect(viewer.get_by_role("heading", name="Metadata")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="image number 1501")).to_be_visible()
    page.keyboard.press("Escape")
    expect(image(page, 1501)).to_be_focused()
    expect(image(page, 1501)).to_be_in_viewport()


@pytest.mark.parametrize("filters", ["q=photograph", "sort=name", "min_width=1600&sort=-size"])
def test_the_next_and_previous_are_those_of_what_is_found(page, address, web, filters):
    """Also where the page was opened at an image that is far down there."""
    listed = requests.get(f"{web.url}/api/uploads?{filters}&fields=caption&limit=200", timeout=60)
    hits = listed.json()["data"]
    open_gallery(page, address, filters)
    page.locator(f"[data-id='{hits[2]['id']}'] a").click()
    expect_image(page, hits[2])
    page.keyboard.press("ArrowRight")
    expect_image(page, hits[3])
    open_gallery(page, address, f"{filters}&upload={hits[150]['id']}")
    expect(page.get_by_role("heading", name="Metadata")).to_be_visible()
    page.get_by_role("button", name="Next").click()
    expect_image(page, hits[151])
    page.keyboard.press("ArrowLeft")
    expect_image(page, hits[150])


def expect_image(page: Page, upload: dict) -> None:
    expect(page.get_by_role("dialog")).to_have_accessible_name(f"Image: {upload['caption']}")


def test_what_is_not_found_has_none_beside_it(page, address, web):
    document = web.workshop.collection.find_one({"caption": "image number 0"})
    open_gallery(page, address, f"min_width=3000&upload={document['_id']}")
    expect(page.get_by_role("heading", name="Metadata")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("No image is next to this one")).to_be_visible()
    expect(page.get_by_role("dialog", name="image number 0")).to_be_visible()


def test_the_focus_goes_down_through_what_was_not_loaded(page):
    image(page, 0).focus()
    focused = "document.activeElement.querySelector('img')?.alt"
    for _ in range(25):
        before = page.evaluate(focused)
        page.keyboard.press("ArrowDown")
        wait_until(lambda: page.evaluate(focused) not in (before, None), 60)  # noqa: B023
    assert int(page.evaluate(focused).split()[-1]) > 80
    box = page.evaluate("document.activeElement.getBoundingClientRect().toJSON()")
    assert 0 <= box["top"] < 1000


def test_what_a_search_finds_has_no_months_and_says_why_it_was_found(page, address):
    """More than the service counts are found, so the grid grows while it is scrolled."""
    open_gallery(page, address, "q=photograph")
    expect(page.locator(".month h2")).to_have_count(0)
    expect(page.locator(".matched").first).to_have_text("found in name")
    height = page.evaluate("document.documentElement.scrollHeight")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    wait_until(lambda: page.evaluate("document.documentElement.scrollHeight") > height, 60)


def test_a_search_that_is_answered_late_is_shown_from_its_beginning(page, traffic):
    """The first answer is an error; it is the next look at what is new that finds something."""
    page.evaluate("scrollTo(0, 20000)")
    wait_until(lambda: page.evaluate(IN_WINDOW), 60)
    first = re.compile(r"/api/uploads\?q=photograph&(?!fields=id&)")
    page.route(first, lambda route: route.fulfill(status=503), times=1)
    with page.expect_response(first) as answer:
        page.evaluate("location.hash = 'q=photograph'")
    assert answer.value.status == 503
    expect(page.locator(".matched").first).to_be_visible()
    traffic.forget_error("503")
    assert page.evaluate("scrollY") == 0
    expect(page.locator(".tile").first).to_have_attribute("aria-posinset", "1")


def test_nothing_found_is_said_in_words(page):
    page.evaluate("location.hash = 'tag=nothing-like-this'")
    expect(page.get_by_text("Nothing is found.")).to_be_visible()
    page.get_by_role("button", name="Show all images").click()
    expect(image(page, 0)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_axe_finds_nothing(page, scheme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    require_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_database_that_does_not_answer_is_told_in_words(browser, servers, address):
    page = browser.new_page()
    open_gallery(page, address)
    with servers.frozen_mongod():
        page.evaluate("scrollTo(0, 20000)")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        expect(page.locator(".grid-notice")).to_contain_text("database")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    expect(page.locator(".tile").first).to_be_visible()
    page.close()


def test_an_empty_service_says_so(page, web):
    web.workshop.collection.delete_many({})
    expect(page.get_by_text("Nothing has been uploaded yet.")).to_be_visible()
