"""The search of the gallery, in a real browser: completions, filters, and what is said of hits."""

import io
import json
import re
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from browsing import HOST, Traffic
from gallery_pages import require_accessible
from playwright.sync_api import expect
from running import wait_until

NAMES = ("zebra", "zeppelin")


@pytest.fixture(scope="module")
def site(service):
    """The service's address for the browser."""
    address = urlsplit(service.url)
    return address._replace(netloc=f"{HOST}:{address.port}").geturl()


@pytest.fixture(scope="module")
def uploads(service):
    """The ids of two uploads, whose words no other upload has."""
    metadata = [
        {"caption": f"a {name} at night", "tags": {"add": [f"quagga {name}"]}} for name in NAMES
    ]
    files = [("files", (f"{n}.jpg", io.BytesIO(photographs.photograph()))) for n in NAMES]
    answer = requests.post(
        f"{service.url}/api/upload",
        data={"metadata": json.dumps(metadata)},
        files=files,
        timeout=60,
    )
    return [each["id"] for each in answer.json()["data"]]


@pytest.fixture(scope="module")
def context(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 900}, timezone_id="UTC")
    yield context
    context.close()


@pytest.fixture(scope="module")
def loaded_page(context, site, uploads):
    page = context.new_page()
    page.goto(f"{site}/gallery")
    return page


@pytest.fixture(scope="module")
def traffic(context, site):
    return Traffic(context, urlsplit(site).netloc)


@pytest.fixture
def page(traffic, loaded_page, site):
    """The page without any search; it must ask nobody else, and report no error."""
    loaded_page.goto(f"{site}/gallery#")
    yield loaded_page
    traffic.require_only_ours()


def field_of(page):
    return page.get_by_role("combobox", name="Search images")


def found(page):
    """How many images are found, in words."""
    return page.locator("#search .found")


def open_filters(page):
    button = page.get_by_role("button", name="Filters", exact=True)
    if button.get_attribute("aria-expanded") == "false":
        button.click()
    return page.locator("#filters")


def fragment_of(page):
    return page.evaluate("() => Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")


def test_it_searches_as_one_types(page):
    field_of(page).press_sequentially("zebra night")
    wait_until(lambda: fragment_of(page) == {"q": "zebra night"}, 60)
    expect(found(page)).to_have_text("1 image found")


def test_a_stale_answer_is_dropped(page):
    """The first answer comes last, when that to what was typed since is there."""
    held = []
    page.route(
        re.compile(r"/api/uploads\?q=zeb&fields=id&limit=1$"), lambda route: held.append(route)
    )
    field_of(page).fill("zeb")
    with page.expect_response(re.compile(r"/api/uploads\?q=quagga\+zeppelin&")):
        wait_until(lambda: page.evaluate("location.hash") == "#q=zeb" and held, 60)
        field_of(page).fill("quagga zeppelin")
    expect(found(page)).to_have_text("1 image found")
    assert len(held) == 1
    held[0].abort()
    page.unroute(re.compile(r"/api/uploads\?q=zeb&fields=id&limit=1$"))
    expect(found(page)).to_have_text("1 image found")


def test_hits_are_counted_when_the_service_is_there_again(page, traffic):
    page.route("**/api/uploads?*", lambda route: route.abort())
    field_of(page).fill("zebra")
    expect(found(page)).to_have_text("The service cannot be reached.")
    expect(page.locator(".grid-notice")).to_contain_text("The service cannot be reached.")
    page.unroute("**/api/uploads?*")
    expect(found(page)).to_have_text("1 image found")
    traffic.forget_error("ERR_FAILED")


def test_a_completion_is_chosen_with_the_keyboard(page):
    field = field_of(page)
    field.press_sequentially("zepp")
    expect(page.get_by_role("option", name="zeppelin")).to_be_visible()
    expect(field).to_have_attribute("aria-expanded", "true")
    field.press("ArrowDown")
    chosen = page.locator(f"#{field.get_attribute('aria-activedescendant')}")
    expect(chosen).to_have_attribute("aria-selected", "true")
    field.press("Enter")
    expect(field).to_have_value("zeppelin ")
    expect(field).to_have_attribute("aria-expanded", "false")
    assert fragment_of(page) == {"q": "zeppelin"}


def test_escape_closes_the_completions_and_a_mouse_chooses_one(page):
    field = field_of(page)
    field.press_sequentially("zebr")
    option = page.get_by_role("option", name="zebra")
    expect(option).to_be_visible()
    field.press("Escape")
    expect(option).to_be_hidden()
    field.press_sequentially("a")
    option.click()
    expect(field).to_have_value("zebra ")


def test_back_leads_to_what_was_searched_before(page):
    field_of(page).press_sequentially("zebra")
    expect(found(page)).to_have_text("1 image found")
    page.go_back()
    expect(field_of(page)).to_have_value("")
    expect(found(page)).to_be_hidden()


def test_every_filter_of_the_listing_is_there_and_those_of_plugins(page, service):
    document = requests.get(f"{service.url}/openapi.json", timeout=60).json()
    parameters = document["paths"]["/api/uploads"]["get"]["parameters"]
    names = {each["name"] for each in parameters if each["in"] == "query"}
    elsewhere = {"page", "limit", "cursor", "sort", "prefix", "fields", "ids", "q"}
    filters = open_filters(page)
    expect(filters.get_by_role("group", name="palette").get_by_label("Color")).to_be_visible()
    shown = filters.locator("[name]").evaluate_all("all => all.map(each => each.name)")
    assert {*shown} == names - elsewhere


def test_filters_are_chips_that_can_be_removed(page):
    filters = open_filters(page)
    field_of(page).fill("quagga")
    expect(found(page)).to_have_text("2 images found")
    for name in NAMES:
        filters.get_by_label("Tag", exact=True).fill(f"quagga {name}")
        filters.get_by_label("Tag", exact=True).press("Enter")
    expect(found(page)).to_have_text("No image found")
    page.get_by_role("button", name="Remove the filter Tag: quagga zebra").click()
    expect(found(page)).to_have_text("1 image found")
    assert fragment_of(page) == {"q": "quagga", "tag": "quagga zeppelin"}


def test_a_choice_a_number_and_a_day_are_filters(page):
    filters = open_filters(page)
    filters.get_by_label("Content type").select_option("image/jpeg")
    filters.get_by_label("Min width").fill("2")
    filters.get_by_label("Min width").press("Enter")
    filters.get_by_label("Uploaded after").fill("2024-02-29")
    filters.get_by_label("Taken before").fill("2024-07-01")
    filters.get_by_label("Duplicate").select_option("yes")
    for chip in (
        "Content type: image/jpeg",
        "Min width: 2",
        "Uploaded after: 2024-02-29",
        "Taken before: 2024-07-01",
        "Duplicate: yes",
    ):
        expect(page.get_by_role("button", name=f"Remove the filter {chip}")).to_be_visible()
    assert fragment_of(page)["uploaded_after"] == "2024-02-29T00:00:00.000Z"
    assert fragment_of(page)["taken_before"] == "2024-07-01"
    for chip in page.locator(".chip").all()[::-1]:
        chip.click()
    assert fragment_of(page) == {}
    expect(filters.get_by_label("Min width")).to_have_value("")


def test_a_year_that_is_half_typed_is_no_filter(page):
    day = open_filters(page).get_by_label("Taken before")
    day.press_sequentially("0701202")
    expect(day).to_have_value("0202-07-01")
    assert fragment_of(page) == {}
    page.keyboard.press("4")
    chip = page.get_by_role("button", name="Remove the filter Taken before: 2024-07-01")
    expect(chip).to_be_visible()


def test_a_day_of_which_a_part_is_deleted_is_a_filter_as_before(page):
    day = open_filters(page).get_by_label("Taken after")
    day.press_sequentially("07012024")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Backspace")
    expect(day).to_have_value("")
    assert fragment_of(page) == {"taken_after": "2024-07-01"}
    page.keyboard.press("5")
    expect(day).to_have_value("2024-07-05")
    assert fragment_of(page) == {"taken_after": "2024-07-05"}


def test_what_is_wrong_with_a_filter_is_said_beside_it(context, site):
    """Browsers report each refused request, so the page is one of which that is not checked."""
    page = context.browser.new_page()
    page.goto(f"{site}/gallery#min_width=wide&q=taken:never")
    chip = page.get_by_role("listitem").filter(has_text="Min width: wide")
    expect(chip.get_by_role("alert")).to_contain_text("integer")
    expect(page.get_by_role("status").get_by_role("alert")).to_contain_text("never")
    page.close()


@pytest.mark.parametrize("width", [360, 2560])
def test_nothing_is_wider_than_the_page_and_axe_finds_nothing(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_filters(page)
    require_accessible(page)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
