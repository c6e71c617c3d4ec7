"""What the gallery does with many images, and what it shows of the service, in a real browser."""

import re
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from browsing import Traffic
from gallery_pages import require_accessible
from playwright.sync_api import expect
from running import wait_until


@pytest.fixture(scope="module")
def loaded_page(browser):
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    yield page
    page.close()


@pytest.fixture
def page(loaded_page, service):
    loaded_page.goto(f"{service.url}/gallery#")
    expect(loaded_page.get_by_role("button", name="State", exact=True)).to_be_visible()
    return loaded_page


@pytest.fixture
def uploads(service, request):
    """The ids of three uploads; the name of the test is in theirs."""
    word = request.node.name.partition("[")[0].replace("_", "")
    content = photographs.photograph()
    files = [("files", (f"{word} {number}.jpg", content)) for number in range(3)]
    answer = requests.post(f"{service.url}/api/upload", files=files, timeout=60)
    return [each["id"] for each in answer.json()["data"]]


def choose(page, ids):
    """Choose images, as the grid does."""
    page.evaluate(
        """async (ids) => {
            const {src} = document.querySelector("script[type=module]");
            const {selection} = await import(new URL("selection.js", src).href);
            selection.clear(); // What the test before chose.
            selection.set(ids, true);
        }""",
        ids,
    )


def chosen(page):
    return page.get_by_role("region", name="Chosen images")


def read(service, path, **parameters):
    return requests.get(f"{service.url}/api/{path}", parameters, timeout=60).json()


def tags_of(service, ids):
    return [read(service, f"uploads/{upload_id}")["tags"] for upload_id in ids]


def trashed(service):
    return {upload["id"] for upload in read(service, "trash", limit=100)["data"]}


def expect_said(page, text):
    """Wait for a message."""
    expect(page.locator("#messages")).to_contain_text(text)


def open_state(page):
    page.get_by_role("button", name="State", exact=True).click()
    return page.get_by_role("dialog", name="State of the service")


def test_chosen_images_get_tags_and_lose_them(page, service, uploads):
    choose(page, uploads[:2])
    expect(chosen(page).get_by_role("status")).to_have_text("2 chosen")
    require_accessible(page)
    page.evaluate("() => document.addEventListener('uploadschange', () => { window.told = true })")
    chosen(page).get_by_role("textbox").fill("okapi, two words")
    chosen(page).get_by_role("button", name="Add tags").click()
    expect_said(page, "Tag “okapi”, “two words”: 2 of 2 done.")
    assert page.evaluate("() => told")
    new = {"okapi", "two words"}
    assert [new <= {*tags} for tags in tags_of(service, uploads)] == [True, True, False]
    expect(chosen(page)).to_contain_text("2 chosen")
    chosen(page).get_by_role("button", name="Choose none").click()
    expect(chosen(page)).to_be_hidden()
    choose(page, uploads[:1])
    chosen(page).get_by_role("textbox").fill("okapi")
    chosen(page).get_by_role("button", name="Remove tags").click()
    expect_said(page, "Remove tags “okapi”: 1 of 1 done.")
    assert ["okapi" in tags for tags in tags_of(service, uploads)] == [False, True, False]


@pytest.fixture
def word(uploads, service):
    """A word that finds the three uploads and no others."""
    return read(service, f"uploads/{uploads[0]}")["original_name"].split()[0]


def test_all_hits_are_put_into_the_trash_and_brought_back(page, service, uploads, word):
    """They are what the page shows, also by a word that is only begun, which jobs do not know."""
    page.goto(f"{service.url}/gallery#q={word[:-1]}")
    choose(page, uploads[:1])
    chosen(page).get_by_role("button", name="Choose all hits").click()
    expect(chosen(page).get_by_role("status")).to_have_text("All hits chosen")
    chosen(page).get_by_role("button", name="Put into the trash").click()
    expect_said(page, "Put into the trash: 3 of 3 done.")
    assert {*uploads} <= trashed(service)
    page.locator("#messages").get_by_role("button", name="Undo").click()
    expect_said(page, "Restore: 3 of 3 done.")
    assert not {*uploads} & trashed(service)


def test_a_job_is_followed_on_when_too_much_was_asked(page, uploads):
    page.route("**/api/jobs/*", lambda route: route.fulfill(status=429), times=1)
    choose(page, uploads)
    with page.expect_response("**/api/jobs/*") as answer:
        chosen(page).get_by_role("button", name="Put into the trash").click()
    assert answer.value.status == 429
    expect_said(page, "Put into the trash: 3 of 3 done.")
    page.locator("#messages").get_by_role("button", name="Undo").click()
    expect_said(page, "Restore: 3 of 3 done.")


def test_nothing_is_ordered_when_other_hits_are_shown_before_all_are_read(page, service, uploads):
    """More than 10,000 are said to be found, of which the filters would be sent."""
    held, orders = [], []

    def answer(route):
        number = int(re.search(r"cursor=(\d+)|$", route.request.url)[1] or 0)
        if number == 10:
            held.append(route)
            return
        data = [{"id": f"{number:04}{each:020}"} for each in range(1000)]
        route.fulfill(json={"data": data, "next_cursor": str(number + 1)})

    page.goto(f"{service.url}/gallery#content_type=image/jpeg")
    choose(page, uploads[:1])
    chosen(page).get_by_role("button", name="Choose all hits").click()
    page.route("**/api/uploads?*limit=1000*", answer)
    page.route("**/api/uploads/bulk", lambda route: orders.append(route))
    with page.expect_request("**/api/uploads?*cursor=10"):
        chosen(page).get_by_role("button", name="Put into the trash").click()
    page.evaluate("location.hash = ''")
    expect(chosen(page)).to_be_hidden()
    held[0].fulfill(json={"data": [{"id": "f" * 24}], "next_cursor": None})
    expect_said(page, "nothing was ordered")
    assert orders == []
    page.unroute_all()


def test_a_job_is_about_what_the_filters_of_the_page_find(page, service, uploads, word):
    """Of more than 10,000 uploads the filters are sent; a job has them in another form."""
    asked = [("q", word), ("content_type", "image/jpeg"), ("undated", "true")]
    asked += [("min_width", "2"), ("uploaded_after", "2024-02-29T00:00:00Z"), ("sort", "size")]
    asked += [("tag_not", "nothing"), ("tag_not", "nowhere")]
    filter = page.evaluate(
        """async (asked) => {
            const {src} = document.querySelector("script[type=module]");
            const filters = await import(new URL("filters.js", src).href);
            return filters.filterOfJob(new URLSearchParams(asked), await filters.readFilters());
        }""",
        asked,
    )
    assert len(filter) == len({name for name, _ in asked}) - 1
    order = {"action": "delete", "filter": filter, "dry_run": True}
    answer = requests.post(f"{service.url}/api/uploads/bulk", json=order, timeout=60)
    assert answer.json() == {"matched": 3}


def test_an_analyzer_is_run_on_chosen_images_and_the_job_is_in_the_state(page, service, uploads):
    # An analysis that is under way is not ordered again.
    wait_until(lambda: all(has_palette(service, each) for each in uploads), 60, "analyses")
    choose(page, uploads)
    chosen(page).get_by_role("combobox", name="Analyzer").select_option("palette")
    chosen(page).get_by_role("button", name="Run").click()
    expect_said(page, "Analyze palette: 3 of 3 done.")
    state = open_state(page)
    jobs = state.get_by_role("region", name="Jobs").get_by_role("listitem")
    expect(jobs.first).to_contain_text("Analyze palette: succeeded, 3 of 3 done")


def has_palette(service, upload_id):
    return read(service, f"uploads/{upload_id}")["analyses"]["palette"]["status"] == "succeeded"


def test_a_job_shows_how_far_it_is_and_can_be_cancelled(page, service, uploads):
    """What a job says while it runs is held up: those of three uploads end at once."""
    job = {"total": 3, "state": "running"}

    def slow_down(route):
        answer = route.fetch().json()
        counts = {**answer["counts"], "succeeded": 1}
        route.fulfill(json={**answer, **job, "counts": counts})

    page.route(re.compile("/api/jobs/[0-9a-f]{24}$"), slow_down)
    choose(page, uploads)
    chosen(page).get_by_role("textbox").fill("slow")
    chosen(page).get_by_role("button", name="Add tags").click()
    expect(chosen(page)).to_contain_text("1 of 3 done")
    expect(chosen(page).get_by_role("progressbar")).to_have_attribute("max", "3")
    with page.expect_request(re.compile("/cancel$")):
        chosen(page).get_by_role("button", name="Cancel").click()
    page.unroute_all(behavior="wait")
    expect_said(page, "Tag “slow”")


def test_on_a_small_screen_no_panel_covers_the_bar_for_chosen_images(page, uploads):
    page.set_viewport_size({"width": 360, "height": 740})
    choose(page, uploads)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload", exact=True).click()
    chooser.value.set_files([{"name": "a.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"}])
    panel = page.get_by_role("region", name="Uploads")
    expect(panel).to_contain_text("1 not taken")

    def is_above():
        box = panel.bounding_box()
        return box["y"] + box["height"] <= chosen(page).bounding_box()["y"]

    wait_until(is_above, 60, "the place of the panel")  # The bar gets more when it is read.
    page.set_viewport_size({"width": 1000, "height": 900})


def test_the_choice_is_over_when_other_hits_are_shown(page, uploads):
    choose(page, uploads)
    page.get_by_role("combobox", name="Search images").fill("somethingelse")
    expect(chosen(page)).to_be_hidden()


def test_services_and_plugins_are_shown_as_they_are(browser, service, uploads):
    """The page asks nobody else, and reports no error."""
    context = browser.new_context()
    traffic = Traffic(context, urlsplit(service.url).netloc)
    page = context.new_page()
    page.goto(f"{service.url}/gallery")
    state = open_state(page)
    services = state.get_by_role("region", name="Services")
    for name in read(service, "health")["services"]:
        expect(services.locator("dt", has_text=re.compile(f"^{name}$"))).to_be_visible()
    plugins = state.get_by_role("region", name="Plugins")
    for plugin in read(service, "plugins")["data"]:
        line = plugins.locator("dl > div", has_text=plugin["name"]).first
        expect(line).to_contain_text(plugin["state"])
        if plugin["reason"]:
            expect(plugins).to_contain_text(plugin["reason"])
    require_accessible(page)
    state.get_by_role("button", name="Close").click()
    expect(state).to_be_hidden()
    expect(page).not_to_have_url(re.compile("panel"))
    traffic.require_only_ours()
    context.close()


def test_what_waits_for_a_service_is_shown_with_its_time(page, service, blip, request):
    blip.mode = "away"
    request.addfinalizer(lambda: setattr(blip, "mode", "ok"))
    content = photographs.photograph()
    requests.post(f"{service.url}/api/upload", files={"files": ("away.jpg", content)}, timeout=60)
    state = open_state(page)
    item = state.get_by_role("listitem").filter(has_text=re.compile(r"^\s*blip: \d+ since"))

    def is_shown():
        """Those that are tried once more do not wait meanwhile."""
        deferred = read(service, "health")["services"]["queue"]["deferred"].get("blip")
        return deferred and item.locator(f"time[datetime='{deferred['since']}']").count()

    wait_until(is_shown, 60, "a deferred analysis")
    page.keyboard.press("Escape")
    expect(state).to_be_hidden()


def test_the_trash_has_pictures_that_are_restored_or_removed_for_good(page, service, uploads):
    for upload_id in uploads:
        assert requests.delete(f"{service.url}/api/uploads/{upload_id}", timeout=60).ok
    trash = open_state(page).get_by_role("region", name="Trash")
    restored, removed = (
        trash.get_by_role("listitem").filter(has=page.locator(f"img[src*='{upload_id}']"))
        for upload_id in uploads[:2]
    )
    is_shown = "image => image.complete && image.naturalWidth > 0"
    wait_until(lambda: restored.get_by_role("img").evaluate(is_shown), 60, "a picture")
    restored.get_by_role("button", name=re.compile("^Restore")).click()
    expect(restored).to_have_count(0)
    assert {*uploads} & trashed(service) == {*uploads[1:]}
    page.once("dialog", lambda asked: asked.dismiss())
    removed.get_by_role("button", name="for good").click()
    assert {*uploads} & trashed(service) == {*uploads[1:]}
    page.once("dialog", lambda asked: asked.accept())
    removed.get_by_role("button", name="for good").click()
    expect(removed).to_have_count(0)
    assert {*uploads} & trashed(service) == {uploads[2]}
