"""Which analyzer fills a field of uploads, where several would."""

import pytest
from marshmallow import INCLUDE, Schema
from workshop import analyzer

from clustr.plugins import Analyzer
from clustr.testing import run_analyzer, sample_image

URL = "http://localhost:11434/v1"
CAPTION = {"fields": {"caption": "text", "tags": "words"}}
OPENAI = {"CLUSTR_PLUGIN__OPENAI__BASE_URL": URL}
BLIP = {"BLIP_SERVICE_URL": "http://captioner:8001"}


def owners(manager) -> dict[str, list[str]]:
    """The analyzers that fill each field."""
    found: dict[str, list[str]] = {}
    for one in manager.analyzers.values():
        for field in one.fields:
            found.setdefault(field, []).append(one.name)
    return found


@pytest.mark.parametrize(
    ("environment", "owner"),
    [
        ({}, "blip"),
        (BLIP, "blip"),
        (OPENAI, "openai"),
        (BLIP | OPENAI, "openai"),
    ],
)
def test_the_chat_model_writes_captions_once_its_address_is_set(load, environment, owner):
    filled = owners(load(environment=environment))
    assert (filled["caption"], filled["tags"]) == ([owner], [owner])
    assert filled["taken_at"] == ["exif"]


@pytest.mark.parametrize("environment", [{}, BLIP, OPENAI, BLIP | OPENAI])
def test_what_the_operator_has_installed_wins_over_what_comes_with_clustr(
    load, plugins_folder, environment
):
    (plugins_folder / "author.py").write_text(analyzer("author", "return {}", **CAPTION))
    filled = owners(load(environment=environment))
    assert (filled["caption"], filled["tags"]) == (["author"], ["author"])


def test_of_two_drop_ins_the_last_one_wins_for_the_fields_that_both_fill(load, plugins_folder):
    (plugins_folder / "one.py").write_text(analyzer("one", "return {}", **CAPTION))
    only_tags = {"fields": {"tags": "words"}}
    (plugins_folder / "two.py").write_text(analyzer("two", "return {}", **only_tags))
    filled = owners(load())
    assert (filled["caption"], filled["tags"]) == (["one"], ["two"])


def test_one_that_looks_at_every_upload_wins_over_one_that_waits_to_be_asked(load, plugins_folder):
    (plugins_folder / "author.py").write_text(
        analyzer("author", "return {}", auto=False, **CAPTION)
    )
    assert owners(load())["caption"] == ["blip"]


def test_the_operator_chooses(load, plugins_folder):
    (plugins_folder / "author.py").write_text(analyzer("author", "return {}", **CAPTION))
    manager = load(toml='[fields]\ntags = "blip"', environment=OPENAI)
    assert manager.warnings == ()
    filled = owners(manager)
    assert (filled["caption"], filled["tags"]) == (["author"], ["blip"])


@pytest.mark.parametrize(
    ("choice", "warning"),
    [
        ('caption = "exif"', "[fields] caption: exif does not fill it; it is filled by blip"),
        ('caption = "nobody"', "[fields] caption: nobody does not fill it; it is filled by blip"),
        ('colour = "blip"', "[fields] colour: blip does not fill it; nothing fills it"),
    ],
)
def test_a_choice_that_cannot_be_is_a_warning(load, choice, warning):
    manager = load(toml=f"[fields]\n{choice}")
    assert manager.warnings == (warning,)
    assert owners(manager)["caption"] == ["blip"]


class Anything(Schema):
    class Meta:
        unknown = INCLUDE


@pytest.mark.parametrize(
    ("field", "value"), [("caption", 7), ("tags", "cat"), ("dimensions", "large"), ("faces", {})]
)
def test_a_value_that_does_not_fit_its_field_fails_the_analysis(field, value):
    class Misfit(Analyzer):
        name = "misfit"
        result_schema = Anything
        fields = {field: "x"}  # noqa: RUF012

        def analyze(self, image, context):
            return {"x": value}

    end = run_analyzer(Misfit(), sample_image("jpeg"))
    assert end.state == "failed"
    assert f'the result does not fit the upload\'s fields: {{"{field}"' in end.error
