"""The library of plugins: what routes, hooks and commands read of the uploads."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import photographs
import pytest
from workshop import Workshop

from clustr.components import library_maker
from clustr.domain.errors import InvalidInput, NoResult, NotFound
from clustr.plugins import Library

UNKNOWN_ID = "0" * 24
PLUGIN = """
import numpy as np
from pathlib import Path
from marshmallow import Schema, fields
from clustr.plugins import *

class Part(Schema):
    size = fields.Integer()

class Result(Schema):
    width = fields.Integer()
    shade = fields.String()
    parts = fields.List(fields.Nested(Part))

class It(Analyzer):
    name = "it"
    result_schema = Result
    vectors = (Vector(field="shape", dimensions=2),)

    def analyze(self, image, context):
        parts = [{"size": image.width}, {"size": 1}]
        shade = {10: "black", 20: "white"}.get(image.width, "gray")
        return {"width": image.width, "parts": parts, "shade": shade, "shape": [image.width, 10]}

@hookimpl
def clustr_register_analyzers(config):
    return [It()]

@hookimpl
def clustr_register_filters(config):
    least = {"operators": ("gte",), "name": "min_it"}
    return [
        Filter(analyzer="it", field="width", type=fields.Integer(), **least),
        Filter(analyzer="it", field="parts", type={"size": fields.Integer()}, name="parts"),
        Filter(analyzer="it", field="shade", type=fields.String(), operators=("eq", "in")),
    ]

@hookimpl
def clustr_analysis_finished(upload, analysis, library):
    count = library.count({"analyses.it.width__gte": 1})
    Path(__file__).with_suffix(".told").write_text(f"{count} {library.get(upload.id).id}")
"""


@pytest.fixture
def library(workshop: Workshop) -> Library:
    """The library of a plugin, as commands get it."""
    workshop.write("it", PLUGIN)
    web = workshop.web
    make = library_maker(workshop.settings, web.nearest, web.plugin_manager)
    return make(next(p for p in web.plugin_manager.plugins if p.name == "it"))


@pytest.fixture
def ids(workshop: Workshop, library: Library) -> list[str]:
    """Uploads of four widths that `it` has looked at."""
    widths = (10, 20, 30, 200)
    ids = workshop.upload(*(photographs.unique("png", w, w, 10) for w in widths))
    workshop.analyze("it")
    return ids


def test_all_uploads_are_walked_through_with_their_results(
    workshop: Workshop, library: Library, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clustr.database.reading.BATCH", 2)
    walked = list(library.walk())
    assert [upload.id for upload in walked] == sorted(ids)
    assert {upload.analyses[0].result["width"] for upload in walked} == {10, 20, 30, 200}
    workshop.collection.insert_one({"not": "of Clustr"})
    walk = library.walk()
    first = next(walk)
    workshop.web.removal.remove(sorted(ids)[3])
    assert [first.id, *(upload.id for upload in walk)] == sorted(ids)[:3]


FILTERS: list[tuple[dict[str, Any], set[int]]] = [
    ({}, {10, 20, 30, 200}),
    ({"analyses.it.width__gte": 30}, {30, 200}),
    ({"analyses.it.width": 20}, {20}),
    ({"analyses.it.width__in": [10, 20]}, {10, 20}),
    ({"analyses.it.width__gte": [20, 30]}, {30, 200}),
    ({"analyses.it.parts": "size>10,size<200"}, {20, 30}),
    ({"analyses.it.shade__in": "black,white"}, {10, 20}),
    ({"analyses.it.shade__in": ("white", "gray", *map(str, range(20)))}, {20, 30, 200}),
    ({"analyses.it.shade__in": []}, set()),
    ({"min_it": 30}, {30, 200}),
    ({"parts": "size>10,size<200"}, {20, 30}),
    ({"parts": ["size>10", "size<25", "1"], "min_it": 30}, {30, 200}),
    ({"min_width": 20, "max_width": 30}, {20, 30}),
    ({"tag": "cat", "taken_after": "2024-07-01"}, set()),
    ({"tag_not": ["cat"], "status": "processed"}, {10, 20, 30, 200}),
    ({"uploaded_after": datetime(2100, 1, 1, tzinfo=UTC)}, set()),
]


def test_filters_are_those_of_the_list(library: Library, ids: list[str]) -> None:
    for filters, widths in FILTERS:
        assert {upload.width for upload in library.walk(filters)} == widths, filters
        assert library.count(filters) == len(widths), filters


def test_the_nearest_to_an_upload_and_to_a_vector(library: Library, ids: list[str]) -> None:
    upload = library.get(ids[0])
    near = library.nearest(upload, "it")
    assert [each.upload.width for each in near] == [20, 30, 200]
    assert [each.upload.width for each in library.nearest([10, 10], "it.shape", 2)] == [10, 20]
    wide = library.nearest(upload, "it", filters={"min_width": 30})
    assert [each.upload.width for each in wide] == [30, 200]
    close = library.nearest(upload, "it", max_distance=near[0].distance)
    assert [each.upload.width for each in close] == [20]
    assert len(library.vector(upload, "it")) == 4


def test_what_cannot_be_asked_of_it_is_said(
    workshop: Workshop, library: Library, ids: list[str]
) -> None:
    wrong = ({"min_it": "x"}, {"parts": "sice=1"}, {"by": "it"}, {"tags": ["cat"]}, {"page": 1})
    times = ({"uploaded_after": "2026-01-01"}, {"taken_before": "in May"}, {"updated_after": 2026})
    of_results = (
        ("it", 1),
        ("it.a__near", 1),
        ("that.width", 10),
        ("it.width__gte", "x"),
        ("it.parts", "a>b"),
        ("it.width", [10]),
        ("it.width__in", "10,20"),
    )
    for filters in (*wrong, *times, *({f"analyses.{name}": value} for name, value in of_results)):
        with pytest.raises(InvalidInput) as invalid:
            library.count(filters)
        assert list(invalid.value.errors) == list(filters)
    for filters, needed in (
        ({"analyzer": "it"}, "analysis_status"),
        ({"analysis_status": "failed"}, "analyzer"),
    ):
        with pytest.raises(InvalidInput, match="give both") as invalid:
            library.count(filters)
        assert list(invalid.value.errors) == [needed]
    upload = library.get(ids[0])
    for arguments, field in (
        ((upload, "that"), "by"),
        (([1, 2, 3], "it"), "to"),
        (("text", "it"), "to"),
        ((upload, "it", 0), "limit"),
    ):
        with pytest.raises(InvalidInput) as invalid:
            library.nearest(*arguments)
        assert list(invalid.value.errors) == [field]
    with pytest.raises(NotFound):
        library.get(UNKNOWN_ID)
    [new] = workshop.upload(photographs.unique("png", 5, 5, 5))
    with pytest.raises(NoResult, match="its analysis it is queued"):
        library.nearest(library.get(new), "it")


def test_urls_need_a_base_url_outside_of_requests(workshop: Workshop, library: Library) -> None:
    [upload_id] = workshop.upload(photographs.unique("png", 5, 5, 5))
    upload = library.get(upload_id)
    with pytest.raises(NotFound, match="set BASE_URL"):
        library.url_of(upload)
    settings = replace(workshop.settings, base_url="https://images.example.com/")
    web = workshop.web
    [plugin] = [p for p in web.plugin_manager.plugins if p.name == "it"]
    based = library_maker(settings, web.nearest, web.plugin_manager)(plugin)
    assert based.url_of(upload) == f"https://images.example.com/uploads/{upload.filename}"


def test_event_hooks_get_the_library(workshop: Workshop, library: Library, ids: list[str]) -> None:
    told = (workshop.plugins / "it.told").read_text().split()
    assert told[0] == "4"
    assert told[1] in ids
