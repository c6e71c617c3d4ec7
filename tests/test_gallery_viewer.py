"""One image of the gallery, in a real browser: zoom, words, analyses, what is like it, trash."""

import re
from urllib.parse import urlsplit

import photographs
import pytest
import requests
from browsing import HOST, Traffic
from calling import uploaded
from gallery_pages import add_uploads, address_of, open_gallery, require_accessible
from playwright.sync_api import Page, expect
from running import wait_until

# Resolves when what an event led to has been drawn.
FRAME = "new Promise(resolve => requestAnimationFrame(() => setTimeout(() => resolve(true))))"


@pytest.fixture(scope="module")
def service(service_with, blip):
    """A service of its own: no other test has uploaded these photographs there."""
    return service_with(BLIP_SERVICE_URL=blip.url, AUTH="off", ALLOWED_HOSTS=HOST)


@pytest.fixture(scope="module")
def uploads(service):
    """Three photographs, of which two are alike, and one is there twice; the newest first."""
    contents = [
        photographs.photograph("jpg", "cat"),
        photographs.photograph("jpg", "cat", 200),
        photographs.photograph("jpg", "coffee"),
        photographs.photograph("jpg", "coffee"),
    ]
    ids = [uploaded(service, content)[0]["id"] for content in contents]
    url = f"{service.url}/api/uploads"
    for number, upload_id in enumerate(ids):
        wait_until(lambda: read(service, upload_id)["status"] == "processed", 60)  # noqa: B023
        taken_at = f"2030-07-0{number + 1}T00:30:00+02:00"
        words = {"caption": f"picture {number}", "taken_at": taken_at}
        assert requests.patch(f"{url}/{upload_id}", json=words, timeout=60).ok
    return ids[::-1]


def read(service, upload_id: str) -> dict:
    return requests.get(f"{service.url}/api/uploads/{upload_id}", timeout=60).json()


@pytest.fixture(scope="module")
def context(browser):
    # Elsewhere than the camera, whose clock is told and not that of the reader.
    context = browser.new_context(
        viewport={"width": 1300, "height": 900}, locale="en-US", timezone_id="America/New_York"
    )
    yield context
    context.close()


@pytest.fixture(scope="module")
def traffic(context, service):
    return Traffic(context, urlsplit(address_of(service)).netloc)


@pytest.fixture(scope="module")
def loaded_page(context, traffic):
    return context.new_page()


@pytest.fixture
def viewer(loaded_page, traffic, service, uploads):
    """The newest photograph in the viewer; nothing is asked of another host, and no error told."""
    loaded_page.set_viewport_size({"width": 1300, "height": 900})
    open_gallery(loaded_page, address_of(service), f"upload={uploads[0]}")
    viewer = loaded_page.get_by_role("dialog")
    expect(viewer.get_by_role("heading", name="Metadata")).to_be_visible()
    yield viewer
    traffic.require_only_ours()


def shown(viewer) -> str:
    return viewer.locator(".viewer-image").get_attribute("alt")


def scale(viewer) -> float:
    transform = viewer.locator(".viewer-image").evaluate("image => image.style.transform")
    return float(re.search(r"scale\(([\d.]+)\)", transform)[1])


def test_an_image_is_opened_from_the_grid_and_closed_into_it(viewer, loaded_page):
    viewer.get_by_role("button", name="Close").click()
    expect(viewer).to_have_count(0)
    link = loaded_page.get_by_role("link", name="picture 2", exact=True)
    link.click()
    expect(viewer).to_have_accessible_name("Image: picture 2")
    loaded_page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(link).to_be_focused()
    expect(loaded_page).not_to_have_url(re.compile("upload="))
    loaded_page.go_back()
    expect(viewer).to_have_accessible_name("Image: picture 2")


def test_the_next_and_previous_come_by_keys_buttons_and_swipes(viewer, loaded_page):
    loaded_page.keyboard.press("ArrowRight")
    expect(viewer).to_have_accessible_name("Image: picture 2")
    viewer.get_by_role("button", name="Next").click()
    expect(viewer).to_have_accessible_name("Image: picture 1")
    loaded_page.keyboard.press("ArrowLeft")
    expect(viewer).to_have_accessible_name("Image: picture 2")
    stage = viewer.locator(".viewer-stage").bounding_box()
    middle = stage["y"] + stage["height"] / 2
    loaded_page.mouse.move(stage["x"] + 400, middle)
    loaded_page.mouse.down()
    loaded_page.mouse.move(stage["x"] + 200, middle, steps=3)
    loaded_page.mouse.up()
    expect(viewer).to_have_accessible_name("Image: picture 1")


def test_it_is_zoomed_by_keys_buttons_wheel_and_double_click(viewer, loaded_page):
    assert scale(viewer) == 1
    loaded_page.keyboard.press("+")
    enlarged = scale(viewer)
    assert enlarged > 1
    viewer.get_by_role("button", name="Zoom in").click()
    assert scale(viewer) > enlarged
    expect(viewer.locator(".viewer-image")).to_have_attribute("src", re.compile("/file$"))
    viewer.get_by_role("button", name="Zoom out").click()
    assert scale(viewer) == pytest.approx(enlarged)
    loaded_page.keyboard.press("0")
    assert scale(viewer) == 1
    viewer.locator(".viewer-stage").hover()
    loaded_page.mouse.wheel(0, -300)
    wait_until(lambda: scale(viewer) > 2, 60, "the end of the wheel")
    loaded_page.keyboard.press("-")
    loaded_page.keyboard.press("0")
    viewer.locator(".viewer-stage").dblclick()
    assert scale(viewer) > 2
    viewer.locator(".viewer-stage").dblclick()
    assert scale(viewer) == 1


def test_an_original_that_does_not_come_is_asked_for_once_for_each_zoom(
    viewer, loaded_page, traffic, uploads
):
    asked = []

    def refuse(route):
        asked.append(urlsplit(route.request.url).path.rsplit("/")[-1])
        route.abort()

    loaded_page.route(re.compile(f"/{uploads[0]}/(file|thumbnail.*1600)"), refuse)
    for zooms in (1, 2):
        viewer.get_by_role("button", name="Zoom in").click()
        wait_until(lambda: loaded_page.evaluate(FRAME) and asked[2 * zooms - 1 :], 60)  # noqa: B023
    has_failed = "image => image.complete && image.naturalWidth === 0"
    wait_until(lambda: viewer.locator(".viewer-image").evaluate(has_failed), 60)
    assert asked == ["file", "thumbnail"] * 2
    loaded_page.unroute_all()
    traffic.forget_error("ERR_FAILED")


def test_two_fingers_zoom(viewer):
    viewer.locator(".viewer-stage").evaluate(
        """stage => {
            stage.setPointerCapture = () => {};  // These pointers are not of a device.
            const box = stage.getBoundingClientRect();
            const say = (type, pointerId, x) => stage.dispatchEvent(new PointerEvent(type, {
                pointerId, pointerType: "touch", bubbles: true, button: 0,
                clientX: box.left + x, clientY: box.top + 200,
            }));
            say("pointerdown", 11, 200);
            say("pointerdown", 12, 300);
            say("pointermove", 12, 500);
            say("pointerup", 11, 200);
            say("pointerup", 12, 500);
        }"""
    )
    assert scale(viewer) == pytest.approx(3)


def test_metadata_are_told_with_the_time_that_the_clock_showed(viewer):
    panel = viewer.get_by_role("region", name="Details")
    expect(panel).to_contain_text("July 4, 2030 at 12:30 AM")
    expect(panel).to_contain_text("image/jpeg")
    expect(panel).to_contain_text("160 ")


def test_words_are_edited(viewer, service, uploads, loaded_page):
    viewer.get_by_label("Caption").fill("a cup")
    viewer.get_by_label("Tags").fill("cup, table")
    viewer.get_by_label("Name").fill("cup.jpg")
    viewer.get_by_label("Taken").fill("2030-08-04T10:15")
    viewer.get_by_role("button", name="Save").click()
    expect(loaded_page.get_by_text("Saved.")).to_be_visible()
    expect(viewer).to_have_accessible_name("Image: a cup")
    stored = read(service, uploads[0])
    assert stored["caption"] == "a cup"
    assert stored["tags"] == ["cup", "table"]
    assert stored["original_name"] == "cup.jpg"
    assert stored["taken_at"] == "2030-08-04T08:15:00.000000Z"
    viewer.get_by_label("Caption").fill("picture 3")
    viewer.get_by_label("Taken").fill("2030-07-04T00:30")
    viewer.get_by_role("button", name="Save").click()
    expect(viewer).to_have_accessible_name("Image: picture 3")


def test_a_tag_with_a_comma_stays_whole(viewer, loaded_page, service, uploads):
    address = f"{service.url}/api/uploads/{uploads[1]}"
    tags = ["Paris, France", "Paris", "France"]
    assert requests.patch(address, json={"tags": {"set": tags}}, timeout=60).ok
    loaded_page.keyboard.press("ArrowRight")
    field = viewer.get_by_label("Tags")
    expect(field).to_have_value("Paris, France, Paris, France")
    field.fill("Paris, France, Paris, France, cup")
    viewer.get_by_role("button", name="Save").click()
    expect(loaded_page.get_by_text("Saved.")).to_be_visible()
    assert read(service, uploads[1])["tags"] == [*tags, "cup"]
    field.fill("Paris, cup")
    viewer.get_by_role("button", name="Save").click()
    wait_until(lambda: read(service, uploads[1])["tags"] == ["Paris", "cup"], 60)


@pytest.mark.parametrize("answer", ["accept", "dismiss"])
def test_what_was_written_is_not_lost_unasked(viewer, service, uploads, loaded_page, answer):
    viewer.get_by_label("Caption").fill("written")
    loaded_page.once("dialog", lambda asked: getattr(asked, answer)())
    with loaded_page.expect_event("dialog") as asked:
        viewer.get_by_role("button", name="Next").click()
    assert "not saved" in asked.value.message
    expect(viewer).to_have_accessible_name("Image: picture 2")
    if answer == "accept":
        expect(loaded_page.get_by_text("Saved.").last).to_be_visible()
        loaded_page.keyboard.press("ArrowLeft")
        expect(viewer).to_have_accessible_name("Image: written")
        viewer.get_by_label("Caption").fill("picture 3")
        viewer.get_by_role("button", name="Save").click()
    else:
        loaded_page.keyboard.press("ArrowLeft")
    expect(viewer).to_have_accessible_name("Image: picture 3")
    assert read(service, uploads[0])["caption"] == "picture 3"


@pytest.mark.parametrize("reason", ["away", "changed", "asked"])
def test_what_could_not_be_saved_is_there_when_one_comes_back(
    viewer, traffic, service, uploads, loaded_page, reason
):
    """The service is away, or somebody else has changed the image, which may be told already."""
    caption = viewer.get_by_label("Caption")
    caption.fill("written")
    is_changed = reason != "away"
    address = f"{service.url}/api/uploads/{uploads[0]}"
    if is_changed:
        assert requests.patch(address, json={"caption": "theirs"}, timeout=60).ok
    else:
        loaded_page.route(f"**/api/uploads/{uploads[0]}", lambda route: route.abort(), times=1)
    which = viewer.get_by_role("group", name="Caption")
    if reason == "asked":
        viewer.get_by_role("button", name="Save").click()
        expect(which).to_be_visible()
    loaded_page.once("dialog", lambda asked: asked.accept())
    viewer.get_by_role("button", name="Next").click()
    message = loaded_page.get_by_text("What you wrote is not saved.")
    expect(viewer).to_have_accessible_name("Image: picture 2")
    message.get_by_role("button", name="Show it").click()
    expect(viewer).to_have_accessible_name("Image: theirs" if is_changed else "Image: picture 3")
    expect(caption).to_have_value("written")
    expect(which).to_have_count(int(is_changed))
    traffic.forget_error("412" if is_changed else "ERR_FAILED")
    caption.fill("picture 3")
    viewer.get_by_role("button", name="Save", exact=True).click()
    expect(viewer).to_have_accessible_name("Image: picture 3")


def test_a_date_that_is_half_typed_is_not_saved(viewer, service, uploads, loaded_page):
    taken = viewer.get_by_label("Taken")
    taken.press("Backspace")
    expect(taken).to_have_value("")
    viewer.get_by_label("Caption").fill("written")
    loaded_page.once("dialog", lambda asked: asked.accept())
    viewer.get_by_role("button", name="Next").click()
    message = loaded_page.get_by_text("What you wrote is not saved. The date is not complete.")
    message.get_by_role("button", name="Show it").click()
    expect(viewer).to_have_accessible_name("Image: picture 3")
    expect(viewer.get_by_label("Caption")).to_have_value("written")
    expect(taken).to_have_value("2030-07-04T00:30")
    assert read(service, uploads[0])["taken_at"] == "2030-07-03T22:30:00.000000Z"


@pytest.fixture
def held(loaded_page):
    """The edits that the page has sent, each of which waits to be answered or let go on."""
    held = []

    def hold(route):
        if route.request.method == "PATCH":
            held.append(route)
        else:
            route.continue_()

    loaded_page.route(re.compile("/api/uploads/[0-9a-f]{24}$"), hold)
    yield held
    loaded_page.unroute_all()


def save_held(viewer, page):
    """Save what was written, and let that wait for its answer."""
    with page.expect_request(lambda request: request.method == "PATCH"):
        viewer.get_by_role("button", name="Save").click()


def test_a_late_answer_leaves_the_next_image_alone(viewer, loaded_page, held, service, uploads):
    viewer.get_by_label("Caption").fill("late")
    save_held(viewer, loaded_page)
    loaded_page.once("dialog", lambda asked: asked.dismiss())
    viewer.get_by_role("button", name="Next").click()
    expect(viewer).to_have_accessible_name("Image: picture 2")
    held[0].continue_()
    expect(loaded_page.get_by_text("Saved.")).to_be_visible()
    expect(viewer).to_have_accessible_name("Image: picture 2")
    assert viewer.get_by_label("Caption").input_value() == "picture 2"
    words = {"caption": "picture 3"}
    address = f"{service.url}/api/uploads/{uploads[0]}"
    assert requests.patch(address, json=words, timeout=60).ok


def test_what_is_written_while_others_are_saved_stays(viewer, loaded_page, held, service, uploads):
    viewer.get_by_label("Caption").fill("written before")
    save_held(viewer, loaded_page)
    viewer.get_by_label("Tags").fill("written, since")
    held[0].continue_()
    expect(viewer).to_have_accessible_name("Image: written before")
    expect(viewer.get_by_label("Tags")).to_have_value("written, since")
    loaded_page.unroute_all()
    viewer.get_by_label("Caption").fill("picture 3")
    viewer.get_by_role("button", name="Save").click()
    expect(viewer).to_have_accessible_name("Image: picture 3")
    assert read(service, uploads[0])["tags"] == ["written", "since"]


@pytest.mark.parametrize(("whose", "kept"), [("Yours", "mine"), ("Theirs", "theirs")])
def test_a_conflict_is_told_with_both_values(viewer, traffic, service, uploads, whose, kept):
    address = f"{service.url}/api/uploads/{uploads[0]}"
    viewer.get_by_label("Caption").fill("mine")
    assert requests.patch(address, json={"caption": "theirs"}, timeout=60).ok
    viewer.get_by_role("button", name="Save").click()
    asked = viewer.get_by_role("group", name="Caption")
    expect(asked).to_contain_text("mine")
    expect(asked).to_contain_text("theirs")
    traffic.forget_error("412")
    asked.get_by_label(whose).check()
    viewer.get_by_role("button", name="Save this").click()
    expect(viewer).to_have_accessible_name(f"Image: {kept}")
    assert read(service, uploads[0])["caption"] == kept
    viewer.get_by_label("Caption").fill("picture 3")
    viewer.get_by_role("button", name="Save", exact=True).click()
    expect(viewer).to_have_accessible_name("Image: picture 3")


def test_a_value_that_cannot_be_is_told(viewer, traffic):
    viewer.get_by_label("Tags").fill("x" * 200)
    viewer.get_by_role("button", name="Save").click()
    expect(viewer.get_by_role("alert")).to_contain_text("100")
    traffic.forget_error("422")


def test_every_analysis_is_told_and_run_again(viewer, service, uploads):
    analyses = read(service, uploads[0])["analyses"]
    assert len(analyses) >= 4
    for name, analysis in analyses.items():
        expect(viewer.get_by_text(f"{name}: {analysis['status']}")).to_be_visible()
    viewer.get_by_text("palette: succeeded").click()
    expect(viewer.get_by_role("group", name="Result of palette")).to_contain_text("luminance")
    viewer.get_by_role("button", name="Run palette again").click()
    before = analyses["palette"]["finished_at"]
    wait_until(
        lambda: (
            read(service, uploads[0])["analyses"]["palette"]["finished_at"] not in (before, None)
        ),
        60,
    )
    expect(viewer.get_by_text("palette: succeeded")).to_be_visible()


def test_the_reason_of_a_failed_analysis_is_told(viewer, service, uploads, loaded_page):
    with service.mongodb() as client:
        client["clustr"]["uploads"].update_one(
            {"filename": f"{uploads[1]}.jpg", "analyses.name": "phash"},
            {"$set": {"analyses.$.state": "failed", "analyses.$.error": "too dark to see"}},
        )
    loaded_page.keyboard.press("ArrowRight")
    expect(viewer.get_by_text("phash: failed")).to_be_visible()
    expect(viewer.get_by_text("too dark to see")).to_be_visible()


def test_copies_and_similar_images_lead_to_these(viewer, loaded_page):
    copies = viewer.get_by_role("list").filter(has=loaded_page.get_by_alt_text("picture 2")).first
    expect(viewer.get_by_role("heading", name="Copies")).to_be_visible()
    copies.get_by_role("button", name="picture 2").click()
    expect(viewer).to_have_accessible_name("Image: picture 2")
    loaded_page.keyboard.press("ArrowRight")
    expect(viewer).to_have_accessible_name("Image: picture 1")
    expect(viewer.get_by_role("heading", name="Similar by phash")).to_be_visible()
    viewer.get_by_role("button", name="picture 0").first.click()
    expect(viewer).to_have_accessible_name("Image: picture 0")


def test_similar_images_are_there_once_an_image_is_analyzed(loaded_page, viewer, service, uploads):
    upload = read(service, uploads[2])
    upload["analyses"]["phash"].update(status="queued", result=None)
    address = f"**/api/uploads/{uploads[2]}"
    loaded_page.route(address, lambda route: route.fulfill(json=upload), times=1)
    loaded_page.evaluate(f"location.hash = 'upload={uploads[2]}'")
    expect(viewer.get_by_text("phash: queued")).to_be_visible()
    expect(viewer.get_by_role("heading", name="Similar by phash")).to_be_visible()


def test_the_original_is_downloaded_under_its_name(viewer, loaded_page, service, uploads):
    with loaded_page.expect_download() as download:
        viewer.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == read(service, uploads[0])["original_name"]


def test_it_goes_into_the_trash_and_comes_back(viewer, loaded_page, service, uploads):
    viewer.get_by_role("button", name="Move to trash").click()
    undo = loaded_page.get_by_role("button", name="Undo")  # for some seconds
    expect(undo).to_be_visible()
    assert "id" not in read(service, uploads[0])
    undo.click()
    wait_until(lambda: "id" in read(service, uploads[0]), 60, "its return")
    expect(viewer).to_have_accessible_name("Image: picture 2")
    loaded_page.keyboard.press("Escape")
    expect(loaded_page.get_by_role("link", name="picture 3", exact=True)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_axe_finds_nothing(viewer, loaded_page: Page, scheme, width):
    loaded_page.set_viewport_size({"width": width, "height": 800})
    loaded_page.emulate_media(color_scheme=scheme)
    require_accessible(loaded_page)
    assert loaded_page.evaluate("document.documentElement.scrollWidth") <= width
    assert viewer.evaluate("dialog => dialog.scrollWidth") <= width


@pytest.mark.parametrize(
    ("scopes", "shown"),
    [
        (["uploads:read"], set()),
        (["uploads:read", "uploads:write"], {"Save"}),
        (
            ["uploads:read", "uploads:delete", "analyses:run"],
            {"Move to trash", "Run palette again"},
        ),
    ],
)
def test_only_what_the_scopes_of_a_key_allow_is_offered(browser, closed_web, scopes, shown):
    web, upload_id = closed_web
    key = web.workshop.web.key_making.create(scopes[-1].replace(":", "-"), scopes).text
    context = browser.new_context()
    assert context.request.post(f"{web.url}/api/session", data={"key": key}).status == 201
    page = context.new_page()
    page.goto(f"{web.url}/gallery#upload={upload_id}")
    expect(page.get_by_role("heading", name="Metadata")).to_be_visible()
    for name in ("Save", "Move to trash", "Run palette again"):
        expect(page.get_by_role("button", name=name)).to_have_count(int(name in shown))
    context.close()


@pytest.fixture(scope="module")
def closed_web(web_with):
    """A service that asks for keys, with an upload that has been analyzed."""
    web = web_with(processes=1, AUTH="keys", PLUGINS_DISABLED="blip,openai,exif,phash")
    key = web.workshop.web.key_making.create("import", ["uploads:write"]).text
    [upload_id] = add_uploads(web, 1, lambda _: {}, key)
    return web, upload_id
