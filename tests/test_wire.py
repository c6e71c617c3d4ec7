"""Times on the wire: always with six digits after the second, so that they are ordered as texts."""

import re
from datetime import UTC, datetime, timedelta, timezone

import orjson
import photographs
import pytest

from clustr.api.http.json_provider import dumps

WHOLE = datetime(2026, 11, 22, 10, 38, 28, tzinfo=UTC)
TIME = re.compile(r'"\d{4}-\d\d-\d\dT[^"]*"')
WRITTEN = re.compile(r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"')


def test_a_whole_second_has_its_fraction_everywhere(workshop):
    workshop.analyzer("says", "return {}")
    first, _, third = workshop.upload(*[photographs.photograph()] * 3)
    client = workshop.app.test_client()
    assert client.delete(f"/api/uploads/{third}").status_code == 204
    times = dict.fromkeys(("upload_time", "taken_at", "updated_at"), WHOLE)
    analysis = {f"analyses.$[].{name}": WHOLE for name in ("started_at", "finished_at")}
    workshop.collection.update_many({}, {"$set": times | analysis})
    workshop.collection.database["uploads_trash"].update_many(
        {}, {"$set": times | {"trash.at": WHOLE}}
    )
    for path in (
        *("/api/uploads", "/api/uploads?q=jpg", f"/api/uploads/{first}", "/api/trash"),
        *(f"/api/uploads/{first}/analyses", "/api/stats", "/api/tags", "/api/health"),
    ):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        local = '"taken_at_local":"2026-11-22T10:38:28.000000"'  # It is in no time zone.
        for time in TIME.findall(answer.text.replace(local, "")):
            assert WRITTEN.fullmatch(time), (path, time)
    answer = client.get("/api/uploads?fields=id,upload_time,taken_at").text
    assert answer.count('"2026-11-22T10:38:28.000000Z"') == 4


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (WHOLE, "2026-11-22T10:38:28.000000Z"),
        (WHOLE.replace(tzinfo=None), "2026-11-22T10:38:28.000000Z"),
        (WHOLE.astimezone(timezone(timedelta(hours=2))), "2026-11-22T10:38:28.000000Z"),
        (WHOLE.replace(microsecond=7000), "2026-11-22T10:38:28.007000Z"),
        ("at 10:38:28Z", "at 10:38:28Z"),
        ("2026-11-22T10:38:28Z", "2026-11-22T10:38:28Z"),
    ],
)
def test_a_text_that_looks_like_a_time_stays_as_it_is(value, written):
    assert orjson.loads(dumps({"a": [value, WHOLE]}))["a"] == [
        written,
        "2026-11-22T10:38:28.000000Z",
    ]
