"""What the analyzer makes of a service's answers; `clustr_http` is that service."""

from typing import Any

import clustr_objects as plugin
import pytest

from clustr.plugins import Analyzer
from clustr.testing import HttpStandIn, assert_analyzer_contract, run_analyzer, sample_image

DOG = {"label": "dog", "score": 0.98, "box": [0.1, 0.2, 0.5, 0.9]}


@pytest.fixture
def config(clustr_http: HttpStandIn) -> dict[str, Any]:
    return plugin.ObjectsConfig().load({"service_url": clustr_http.url})


@pytest.fixture
def analyzer(config: dict[str, Any]) -> Analyzer:
    [analyzer] = plugin.clustr_register_analyzers(config)
    return analyzer


def test_contract(analyzer: Analyzer, config: dict[str, Any], clustr_http: HttpStandIn) -> None:
    clustr_http.answer({"objects": [DOG]})
    assert_analyzer_contract(analyzer, config)


def test_objects(analyzer: Analyzer, config: dict[str, Any], clustr_http: HttpStandIn) -> None:
    clustr_http.answer({"objects": [DOG], "took_ms": 12})
    end = run_analyzer(analyzer, sample_image("jpeg"), config=config)
    assert end.result == {"objects": [DOG]}, end.error
    assert clustr_http.received[0].path == "/objects"


def test_a_box_outside_of_the_image_is_a_failure(
    analyzer: Analyzer, config: dict[str, Any], clustr_http: HttpStandIn
) -> None:
    clustr_http.answer({"objects": [{**DOG, "box": [0, 0, 640, 480]}]})
    end = run_analyzer(analyzer, sample_image("jpeg"), config=config)
    assert end.state == "failed"
    assert "objects.0.box" in end.error


def test_a_page_of_a_proxy_is_waited_out(
    analyzer: Analyzer, config: dict[str, Any], clustr_http: HttpStandIn
) -> None:
    clustr_http.answer(b"<!DOCTYPE html><html><body>Down for an hour</body></html>")
    end = run_analyzer(analyzer, sample_image("jpeg"), config=config)
    assert end.state == "deferred"
    assert "Down for an hour" in end.error
