"""Reading uploads back: the listing by pages and by cursor, and one upload."""

import base64
import itertools
import struct
import threading

import photographs
import pytest
import requests
from calling import get, uploaded
from running import moment, wait_until

PROBLEM = "application/problem+json"
UNKNOWN_ID = "0123456789abcdef01234567"


@pytest.fixture(scope="module")
def filled(service):
    """The service with some uploads of this file, newest first."""
    for number in range(3):
        uploaded(service, *(photographs.unique("png", 81_000 + 10 * number + i) for i in range(4)))
    return service


def listing(service, query: str = "") -> dict:
    answer = get(service, f"/api/uploads{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def walk(service, limit: int):
    """Every page from the newest on, by cursor."""
    page = listing(service, f"?limit={limit}")
    yield page
    known = set()
    while cursor := page["next_cursor"]:
        assert cursor not in known, "it would go on for ever"
        known.add(cursor)
        page = listing(service, f"?limit={limit}&cursor={cursor}")
        yield page


def everything(service, query: str = "") -> list[dict]:
    """All uploads that a query finds, however many others have left."""
    page = listing(service, f"?limit=100&{query}")
    found = page["data"]
    while cursor := page["next_cursor"]:
        page = listing(service, f"?limit=100&{query}&cursor={cursor}")
        found += page["data"]
    return found


def ids(page: dict) -> list[str]:
    return [upload["id"] for upload in page["data"]]


def wrong(answer: requests.Response) -> dict[str, list[str]]:
    """What is said of each field that is wrong."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    document = answer.json()
    assert document["type"] == "urn:clustr:problem:invalid_input"
    return document["errors"]


def test_the_newest_come_first(filled):
    before = listing(filled)
    [first] = uploaded(filled, photographs.unique("png", 82_001))
    [second] = uploaded(filled, photographs.unique("png", 82_002))
    after = listing(filled)
    assert ids(after) == [second["id"], first["id"], *ids(before)][:20]
    assert after["total"] == before["total"] + 2
    keys = [
        (moment(upload["upload_time"]), upload["id"])
        for upload in listing(filled, "?limit=100")["data"]
    ]
    assert keys == sorted(keys, reverse=True)


def test_what_is_said_without_a_query(filled):
    page = listing(filled)
    assert page.keys() == {
        *("data", "total", "total_is_estimate", "page", "limit", "next_cursor"),
    }
    assert page["page"] == 1
    assert page["limit"] == 20
    assert len(page["data"]) == min(20, page["total"])


def test_pages_follow_each_other(filled):
    whole = ids(listing(filled, "?limit=100"))[:9]
    pages = [listing(filled, f"?limit=3&page={number}") for number in (1, 2, 3)]
    assert [page["page"] for page in pages] == [1, 2, 3]
    assert {page["limit"] for page in pages} == {3}
    assert list(itertools.chain(*map(ids, pages))) == whole


def test_a_page_behind_the_end_is_empty(filled):
    page = listing(filled, "?page=1000000&limit=100")
    assert page["data"] == []
    assert page["next_cursor"] is None
    assert page["total"] == listing(filled)["total"]


def test_the_last_page_has_no_cursor(filled):
    total = listing(filled)["total"]
    pages = list(walk(filled, limit=5))
    assert len(pages) == -(-total // 5)
    assert [page["next_cursor"] is None for page in pages] == [False] * (len(pages) - 1) + [True]
    assert {page["total"] for page in pages} == {total}
    assert {page["page"] for page in pages[1:]} == {None}


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_a_cursor_walks_past_every_upload_once(filled, limit):
    walked = list(itertools.chain(*map(ids, walk(filled, limit))))
    assert len(walked) == len(set(walked)) == listing(filled)["total"]


def test_F7c_a_cursor_neither_skips_nor_repeats_while_others_are_added(filled):
    """Two clients upload from before the first page to after the last one."""
    before = set(itertools.chain(*map(ids, walk(filled, 100))))
    added: list[str] = []
    stop = threading.Event()

    def add(start: int) -> None:
        for number in itertools.count(start):
            if stop.is_set():
                return
            added.extend(one["id"] for one in uploaded(filled, photographs.unique("png", number)))

    clients = [threading.Thread(target=add, args=(start,)) for start in (83_000, 84_000)]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: len(added) > 2, 60, "uploads under way")
        pages = walk(filled, 3)
        walked = ids(next(pages))
        count = len(added)
        wait_until(lambda: len(added) > count, 60, "an upload after the first page")
        walked += itertools.chain(*map(ids, pages))
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert len(walked) == len(set(walked))
    assert before <= set(walked) <= before | set(added)


def test_F7c_what_was_accepted_is_listed_at_once(filled):
    for number in range(10):
        [one] = uploaded(filled, photographs.unique("png", 85_000 + number))
        assert ids(listing(filled, "?limit=1")) == [one["id"]]


@pytest.mark.parametrize("query", ["limit=1", "limit=100", "page=1", "page=1000000"])
def test_limits_are_inclusive(filled, query):
    name, _, value = query.partition("=")
    assert listing(filled, f"?{query}")[name] == int(value)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1_0", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("page=0", "page"),
        ("page=1000001", "page"),
        ("page=x", "page"),
        ("cursor=", "cursor"),
        ("cursor=nonsense", "cursor"),
        ("cursor=%00%ff%C3%A9", "cursor"),
        (f"cursor={'A' * 27}%3D%3D%3D", "cursor"),
        (f"cursor={'A' * 3000}", "cursor"),
        ("sort=colour", "sort"),
        ("limit[$gt]=1", "limit[$gt]"),
        ("cursor[$ne]=a", "cursor[$ne]"),
    ],
)
def test_G6_what_is_wrong_in_a_query_is_named(service, query, field):
    errors = wrong(get(service, f"/api/uploads?{query}"))
    assert list(errors) == [field]
    assert all(errors[field])


def test_all_that_is_wrong_is_named_at_once(service):
    assert wrong(get(service, "/api/uploads?limit=0&page=0")).keys() == {"limit", "page"}


def test_a_cursor_beside_a_page_is_refused(filled):
    cursor = listing(filled, "?limit=1")["next_cursor"]
    assert list(wrong(get(filled, f"/api/uploads?page=1&cursor={cursor}"))) == ["cursor"]


@pytest.mark.parametrize("milliseconds", [-(2**63), 2**63 - 1, -1, 0, 10**15])
def test_a_forged_cursor_is_an_answer_or_a_clear_refusal(service, milliseconds):
    """Whoever makes one up gets another part of the listing, or is told that it is none."""
    packed = struct.pack(">q", milliseconds) + bytes(12)
    cursor = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    answer = get(service, f"/api/uploads?cursor={cursor}")
    assert answer.status_code == 200 or list(wrong(answer)) == ["cursor"]


def test_a_cursor_holds_when_its_upload_is_the_last(filled):
    """The cursor names the first upload that follows, and that one is not lost."""
    *_, last_but_one, last = walk(filled, 5)
    again = listing(filled, f"?limit=5&cursor={last_but_one['next_cursor']}")
    assert ids(again) == ids(last)
    assert again["next_cursor"] is None


def test_results_are_left_out_of_listings(filled):
    [one] = uploaded(filled, photographs.path("coffee").read_bytes())

    def processed() -> dict | None:
        found = get(filled, f"/api/uploads/{one['id']}").json()
        assert found["status"] != "error"
        return found if found["status"] == "processed" else None

    whole = wait_until(processed, 60, "the analyses")
    assert whole["analyses"]["dimensions"]["result"] == {"width": 600, "height": 400}
    assert whole["analyses"]["blip"]["result"]["caption"] == whole["caption"]
    assert whole["tags"]
    listed = next(u for u in listing(filled, "?limit=5")["data"] if u["id"] == one["id"])
    for analysis in whole["analyses"].values():
        del analysis["result"]
    assert listed == whole  # and so no analysis in it has the key `result`


def test_one_upload(filled):
    content = photographs.photograph("webp")
    [one] = uploaded(filled, content)
    found = get(filled, f"/api/uploads/{one['id']}").json()
    assert found["id"] == one["id"]
    assert found["original_name"] == one["original_filename"]
    assert found["filename"] == one["stored_filename"]
    assert found["file_path"].endswith(one["stored_filename"])
    assert found["url"] == one["preview_url"]
    assert found["size"] == one["file_size"] == len(content)
    assert found["content_type"] == one["content_type"] == "image/webp"
    assert found["taken_at"] is None
    assert found["faces"] == found["face_cluster_ids"] == []
    assert found["upload_time"].endswith("Z")
    assert found["updated_at"].endswith("Z")
    assert found["analyses"].keys() == {"blip", "dimensions", "exif", "palette", "phash"}
    for analysis in found["analyses"].values():
        assert analysis.keys() == {
            "status",
            "version",
            "attempts",
            "started_at",
            "finished_at",
            "stale",
            "provenance",
            "error",
            "result",
        }


def test_an_unknown_upload(service):
    answer = get(service, f"/api/uploads/{UNKNOWN_ID}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == PROBLEM
    assert UNKNOWN_ID in answer.json()["detail"]


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "zz",
        UNKNOWN_ID + "0",
        UNKNOWN_ID[:-1],
        UNKNOWN_ID.upper(),
        UNKNOWN_ID[:-1] + "g",
        UNKNOWN_ID + "%0A",
        "%00" * 24,
        "%C3%A9" * 12,
        "..%5c..%5cetc",
        "{'$ne':null}",
        "a" * 4000,
    ],
)
def test_G5_what_is_no_id(service, text):
    answer = get(service, f"/api/uploads/{text}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
    assert "an id is 24 hexadecimal digits, in lower case" in answer.json()["detail"]


def test_stored_dimensions_beside_those_that_were_read(service):
    [one] = uploaded(service, photographs.oriented(6))
    width, height = photographs.picture().size
    expected = {"width": width, "height": height}
    answer = get(service, f"/api/debug/dimensions?id={one['id']}")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "id": one["id"],
        "stored": expected,
        "read": expected,
        "match": True,
    }


def test_dimensions_of_what_is_not_there(service):
    assert get(service, f"/api/debug/dimensions?id={UNKNOWN_ID}").status_code == 404
    for query in ("", "?id=", "?id=1", f"?id={UNKNOWN_ID}%0A"):
        assert list(wrong(get(service, f"/api/debug/dimensions{query}"))) == ["id"]


def test_dimensions_of_an_upload_whose_file_is_gone(service):
    [one] = uploaded(service, photographs.unique("png", 86_001))
    path = get(service, f"/api/uploads/{one['id']}").json()["file_path"]
    (service.data / "uploads" / path).unlink()
    answer = get(service, f"/api/debug/dimensions?id={one['id']}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == PROBLEM
    assert get(service, f"/api/uploads/{one['id']}").status_code == 200


def test_debugging_is_off_by_default(app_with):
    client = app_with().test_client()
    assert client.get(f"/api/debug/dimensions?id={UNKNOWN_ID}").status_code == 404
    assert "/api/debug/dimensions" not in client.get("/openapi.json").json["paths"]


@pytest.fixture(scope="module")
def settled(filled):
    """The service once all analyses have ended, also those of other tests."""
    [_, again] = uploaded(filled, *[photographs.path("coffee").read_bytes()] * 2)
    wait_until(lambda: not listing(filled, "?status=pending")["data"], 180, "the analyses")
    filled.known = get(filled, f"/api/uploads/{again['id']}").json()
    return filled


@pytest.mark.parametrize(
    ("query", "met"),
    [
        ("status=processed", lambda upload: upload["status"] == "processed"),
        ("content_type=image/png", lambda upload: upload["content_type"] == "image/png"),
        ("duplicate=true", lambda upload: upload["duplicate_of"]),
        ("duplicate=false", lambda upload: not upload["duplicate_of"]),
        ("min_width=600", lambda upload: upload["dimensions"]["width"] >= 600),
        ("max_height=399&sort=size", lambda upload: upload["dimensions"]["height"] <= 399),
        ("min_size=10000", lambda upload: upload["size"] >= 10_000),
        (
            "analyzer=dimensions&analysis_status=succeeded",
            lambda upload: upload["analyses"]["dimensions"]["status"] == "succeeded",
        ),
        (
            "status=processed&duplicate=true&min_width=600&sort=name",
            lambda upload: upload["duplicate_of"] and upload["dimensions"]["width"] >= 600,
        ),
    ],
)
def test_filters_find_what_meets_them(settled, query, met):
    found = {upload["id"] for upload in everything(settled, query)}
    assert found == {upload["id"] for upload in everything(settled) if met(upload)}
    assert found


def test_all_tags_have_to_be_there(settled):
    first, second = settled.known["tags"][:2]
    both = listing(settled, f"?tag={first}&tag={second}&limit=100")
    assert settled.known["id"] in ids(both)
    assert all({first, second} <= set(upload["tags"]) for upload in both["data"])
    assert listing(settled, f"?tag={first}&tag=unheard")["data"] == []


def test_times_are_ranges(settled):
    moment = settled.known["upload_time"]
    after = listing(settled, f"?uploaded_after={moment}&limit=100")["data"]
    before = listing(settled, f"?uploaded_before={moment}&limit=100")["data"]
    assert settled.known["id"] in [upload["id"] for upload in after]
    assert settled.known["id"] not in [upload["id"] for upload in before]
    assert listing(settled, "?taken_after=1970-01-01T00:00:00Z&limit=100")


def test_a_range_is_in_its_own_order(settled):
    sizes = [upload["size"] for upload in listing(settled, "?min_size=1&limit=100")["data"]]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("sort", ["upload_time", "taken_at", "size", "name"])
def test_every_order_can_be_turned_round(settled, sort):
    field = {"name": "original_name"}.get(sort, sort)
    down, up = everything(settled, f"sort=-{sort}"), everything(settled, f"sort={sort}")
    assert [upload["id"] for upload in up] == [upload["id"] for upload in reversed(down)]
    values = [upload[field] for upload in up if upload[field] is not None]
    assert values == sorted(values)


def test_only_the_fields_that_were_asked_for(settled):
    page = listing(settled, "?fields=id,tags&limit=2")
    assert [upload.keys() for upload in page["data"]] == [{"id", "tags"}] * 2
    whole = listing(settled, "?fields=id,analyses,analyses.results&limit=100")["data"]
    [known] = [upload for upload in whole if upload["id"] == settled.known["id"]]
    assert known["analyses"] == settled.known["analyses"]
    every = ",".join(settled.known)
    [known] = [
        upload
        for upload in listing(settled, f"?fields={every},analyses.results&limit=100")["data"]
        if upload["id"] == settled.known["id"]
    ]
    assert known == settled.known


def test_links_lead_through_the_pages(settled):
    first = get(settled, "/api/uploads?limit=3&content_type=image/png")
    assert first.links.keys() == {"first", "next"}
    second = requests.get(first.links["next"]["url"], timeout=60)
    assert not set(ids(first.json())) & set(ids(second.json()))
    assert requests.get(second.links["first"]["url"], timeout=60).json() == first.json()
    third = get(settled, "/api/uploads?limit=3&page=3")
    before = requests.get(third.links["prev"]["url"], timeout=60).json()
    assert before["page"] == 2
    assert "next" not in get(settled, "/api/uploads?page=1000&limit=100").links


def test_what_a_client_has_is_not_sent_again(settled):
    path = f"/api/uploads/{settled.known['id']}"
    whole = get(settled, path)
    assert whole.json() == settled.known
    tag = whole.headers["ETag"]
    assert tag.startswith('"')
    again = get(settled, path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == tag
    assert get(settled, path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("status=done", "status", "processed"),
        ("content_type=image/x", "content_type", "image/png"),
        ("duplicate=maybe", "duplicate", "boolean"),
        ("duplicate=1", "duplicate", "boolean"),
        ("untagged=maybe", "untagged", "boolean"),
        ("untagged=", "untagged", "boolean"),
        ("undated=0", "undated", "boolean"),
        ("undated=true&undated=false", "undated", "once"),
        ("tag_not=", "tag_not.0", "Length"),
        (f"tag_not={'&tag_not='.join('a' * 21)}", "tag_not", "20"),
        ("fields=id,capton", "fields", "caption"),
        ("fields=", "fields", "caption"),
        ("analyzer=blip", "analysis_status", "analyzer"),
        ("analysis_status=failed", "analyzer", "analysis_status"),
        ("analyzer=Blip&analysis_status=failed", "analyzer", "a-z"),
        ("analyzer=blip&analysis_status=done", "analysis_status", "succeeded"),
        ("min_width=-1", "min_width", "0"),
        ("max_size=1e3", "max_size", "integer"),
        ("max_size=99999999999999999999", "max_size", "0"),
        ("uploaded_after=yesterday", "uploaded_after", "ISO 8601"),
        ("sort=--size", "sort", "upload_time"),
        ("tag=", "tag.0", "Length"),
        ("status=error&status=pending", "status", "once"),
        (f"tag={'&tag='.join('a' * 21)}", "tag", "20"),
    ],
)
def test_what_is_wrong_with_a_filter_is_named_with_what_is_allowed(service, query, field, says):
    errors = wrong(get(service, f"/api/uploads?{query}"))
    assert list(errors) == [field]
    assert says in " ".join(errors[field])
