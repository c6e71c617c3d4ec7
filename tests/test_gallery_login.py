"""The gallery of a service that asks for keys, in a real browser."""

import re
import secrets

import photographs
import pytest
from gallery_pages import require_accessible
from playwright.sync_api import expect
from running import wait_until

READ = "uploads:read"
ALL = (READ, "uploads:write", "uploads:delete", "analyses:run", "plugins:read")


@pytest.fixture(scope="module")
def closed_web(web_with):
    return web_with(processes=1, AUTH="keys")


@pytest.fixture
def key(closed_web):
    """Makes the text of a key with these scopes."""

    def make(*scopes):
        name = f"key-{secrets.token_hex(4)}"
        return closed_web.workshop.web.key_making.create(name, scopes).text

    return make


@pytest.fixture
def page(browser, closed_web):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{closed_web.url}/gallery")
    yield page
    context.close()


def dialog_of(page):
    return page.get_by_role("dialog", name="Log in")


def log_in(page, text):
    dialog_of(page).get_by_label("Key").fill(text)
    dialog_of(page).get_by_role("button", name="Log in").click()


def click_behind_dialog(button):
    """Click, though what the page asks by itself may have led to the dialog to log in already."""
    button.dispatch_event("click")


def end_session(page):
    """Take the session away, and have the page notice."""
    page.context.clear_cookies()
    page.evaluate("document.dispatchEvent(new Event('uploadschange'))")


def actions(page):
    return page.get_by_role("navigation", name="Actions").get_by_role("button")


def test_a_key_is_asked_for_and_the_browser_keeps_a_cookie_that_no_script_reads(page, key):
    expect(dialog_of(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog_of(page)).to_be_visible()
    log_in(page, "clustr_nothing")
    expect(dialog_of(page).get_by_role("alert")).not_to_be_empty()
    require_accessible(page)
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    expect(page.get_by_role("combobox", name="Search images")).to_be_visible()
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.reload()
    expect(actions(page).filter(has_text="Log out")).to_be_visible()
    expect(dialog_of(page)).to_be_hidden()


@pytest.mark.parametrize(
    ("scopes", "shown", "regions"),
    [
        ((READ,), ["State"], ["Services", "Jobs", "Trash"]),
        (ALL, ["Upload", "State"], ["Services", "Jobs", "Plugins", "Trash"]),
    ],
    ids=["read", "all"],
)
def test_only_what_the_scopes_allow_is_shown(page, key, scopes, shown, regions):
    log_in(page, key(*scopes))
    expect(actions(page)).to_have_text([re.compile("^Log out"), *shown])
    page.get_by_role("button", name="State").click()
    state = page.get_by_role("dialog", name="State of the service")
    expect(state.get_by_role("region")).to_have_count(len(regions))
    for region in regions:
        expect(state.get_by_role("region", name=region)).to_be_visible()


@pytest.mark.parametrize("is_over", [False, True], ids=["in use", "over"])
def test_after_a_log_out_the_key_is_asked_for_again(page, key, is_over):
    """Also when the session had ended before, of which the page did not know."""
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    if is_over:
        page.context.clear_cookies()
    click_behind_dialog(page.get_by_role("button", name="Log out"))
    expect(dialog_of(page)).to_be_visible()
    assert page.context.cookies() == []


def test_other_tabs_go_on_with_the_session_that_one_has_begun(page, key, closed_web):
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    other = page.context.new_page()
    other.goto(page.url)
    expect(actions(other).filter(has_text="Upload")).to_be_visible()
    end_session(page)
    end_session(other)
    for tab in (page, other):
        expect(dialog_of(tab)).to_be_visible()
    log_in(page, key(*ALL))
    expect(dialog_of(other)).to_be_hidden()
    upload_one(other)


def test_an_answer_that_comes_after_the_next_log_in_does_not_ask_for_a_key(page, key):
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    held = []
    page.route("**/api/stats", lambda route: held.append(route), times=1)
    with page.expect_request("**/api/stats"):
        page.evaluate(
            """async () => {
                const {src} = document.querySelector("script[type=module]");
                const {get} = await import(new URL("api.js", src).href);
                window.late = get("api/stats");
            }"""
        )
    end_session(page)
    expect(dialog_of(page)).to_be_visible()
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    held[0].fulfill(status=401)
    assert page.evaluate("late.then(() => true)")
    expect(dialog_of(page)).to_be_hidden()


def test_a_service_that_is_away_at_first_is_tried_again(page, closed_web):
    problem = {"detail": "The database does not answer."}
    answer = {"status": 503, "json": problem, "content_type": "application/problem+json"}
    expect(dialog_of(page)).to_be_visible()
    page.route("**/api/session", lambda route: route.fulfill(**answer), times=1)
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("The database does not answer.")
    require_accessible(page)
    page.get_by_role("button", name="Try again").click()
    expect(dialog_of(page)).to_be_visible()


def test_a_session_that_ends_loses_nothing_that_was_typed(page, key):
    log_in(page, key(*ALL))
    field = page.get_by_role("combobox", name="Search images")
    field.fill("what was typed")
    end_session(page)
    expect(dialog_of(page)).to_contain_text("Your session has ended")
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    expect(field).to_have_value("what was typed")
    expect(page.get_by_text("No image found")).to_be_visible()
    upload_one(page)


def test_messages_are_shown_after_a_log_in_that_had_one_beside_it(page, key):
    log_in(page, key(*ALL))
    upload_one(page)
    page.get_by_role("button", name="Show a.jpg").click()
    trash = page.get_by_role("button", name="Move to trash")
    expect(trash).to_be_visible()
    page.context.clear_cookies()
    click_behind_dialog(trash)
    expect(dialog_of(page).get_by_role("status")).not_to_be_empty()
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    trash.click()
    expect(page.get_by_text("It is in the trash.")).to_be_visible()


def test_uploads_wait_for_the_next_session(page, key):
    """Also those of which it comes out after its beginning that theirs had ended."""
    held = []

    def hold_first(route):
        if len(held) < 3:
            held.append(route)
        else:
            route.continue_()

    log_in(page, key(*ALL))
    page.route(re.compile("/api/upload\\?"), hold_first)
    choose_files(page, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    wait_until(lambda: page.evaluate("1") and len(held) == 3, 60)
    page.context.clear_cookies()
    held[0].fulfill(status=401)
    expect(dialog_of(page)).to_be_visible()
    expect(page.locator("#uploads")).to_contain_text("0 of 4 uploaded")
    expect(page.locator("#uploads")).not_to_contain_text("not taken")
    log_in(page, key(*ALL))
    expect(dialog_of(page)).to_be_hidden()
    for late in held[1:]:
        late.fulfill(status=401)
    expect(page.locator("#uploads")).to_contain_text("4 of 4 uploaded")
    expect(dialog_of(page)).to_be_hidden()


def choose_files(page, *names):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload").click()
    files = [
        {
            "name": name,
            "mimeType": "image/jpeg",
            "buffer": photographs.unique(number=secrets.randbelow(10**9)),
        }
        for name in names
    ]
    chooser.value.set_files(files)


def upload_one(page):
    """It takes the token of the session to change something."""
    choose_files(page, "a.jpg")
    uploads = page.get_by_role("region", name="Uploads")
    expect(uploads.get_by_role("status")).to_have_text("1 of 1 uploaded")
