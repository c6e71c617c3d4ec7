"""The plugin `phash`: hashes of pictures of every kind, and finding what looks alike."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import color_profiles
import known_results
import numpy as np
import photographs
import PIL.Image
import PIL.ImageCms
import pytest
from bson import ObjectId
from clustr_plugins import phash as plugin
from PIL import ImageEnhance
from running import Servers
from scipy.fftpack import dct
from workshop import FIRST_PARTY, Workshop

from clustr.database import NewVector
from clustr.imaging.color_management import displayed
from clustr.plugins import Image
from clustr.services.vector_upkeep import VectorUpkeep

PROBLEM = "application/problem+json"
UNKNOWN_ID = "0123456789abcdef01234567"


@pytest.fixture
def bits_of(tmp_path: Path) -> Callable[[bytes], int]:
    def bits_of(content: bytes) -> int:
        path = tmp_path / "image"
        path.write_bytes(content)
        image = Image("0" * 24, "0" * 64, "image/png", len(content), 1, 1, path)
        result = plugin.Phash().analyze(image, None)
        vector = result.pop("bits")
        assert plugin.PhashResult().validate(result) == {}
        assert plugin.Phash().vectors_of(result) == {"bits": vector}
        return int(result["hash"], 16)

    return bits_of


@pytest.mark.parametrize(("name", "content"), [*known_results.pictures()])
def test_the_same_picture_has_the_same_hash(bits_of, name, content):
    assert f"{bits_of(content):016x}" == known_results.RESULTS[name][0]


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def reference(picture: PIL.Image.Image) -> int:
    """The hash of what is seen, as ImageHash computes it, with the cosine transform of SciPy."""
    small = displayed(picture).convert("L").resize((32, 32), PIL.Image.Resampling.LANCZOS)
    found = dct(dct(np.asarray(small).astype(float), axis=0), axis=1)[:8, :8]
    return int("".join("01"[int(bit)] for bit in (found > np.median(found)).flatten()), 2)


@pytest.mark.parametrize("name", [name for name in photographs.FILES if name != "logo"])
def test_it_is_the_hash_that_others_compute(bits_of, name):
    picture = photographs.picture(name, 200)
    assert distance(bits_of(photographs.encode(picture, "png")), reference(picture)) <= 1
    whole = photographs.path(name)
    assert distance(bits_of(whole.read_bytes()), reference(PIL.Image.open(whole))) <= 3


def test_it_is_of_the_colors_that_are_seen(bits_of):
    """The same colors in another profile are the same picture, the same numbers are another one."""
    seen = displayed(photographs.picture("astronaut", 200))
    linear = color_profiles.rgb("Linear", color_profiles.SRGB, color_profiles.gamma(1.0))
    to_linear = PIL.ImageCms.profileToProfile(
        seen, PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.getOpenProfile(io.BytesIO(linear))
    )
    numbers = photographs.encode(to_linear, "png", icc_profile=None)
    profiled = photographs.encode(to_linear, "png", icc_profile=linear)
    expected = bits_of(photographs.encode(seen, "png"))
    assert distance(bits_of(profiled), expected) <= 2
    assert distance(bits_of(numbers), expected) > 2


@pytest.mark.parametrize("name", ["cat", "rocket", "astronaut", "coffee", "camera"])
def test_what_looks_alike_is_near_and_what_does_not_is_far(bits_of, name):
    picture = photographs.picture(name, 300)
    bits = bits_of(photographs.encode(picture, "png"))
    rgb = picture.convert("RGB")
    for other in (
        photographs.encode(rgb.resize((150, 97)), "png"),
        photographs.encode(rgb, "jpg", quality=30),
        photographs.encode(ImageEnhance.Brightness(rgb).enhance(1.15), "webp"),
        photographs.encode(ImageEnhance.Color(rgb).enhance(0.2), "bmp"),
    ):
        assert distance(bits_of(other), bits) <= plugin.FARTHEST
    for other in photographs.FILES:
        if other != name:
            far = bits_of(photographs.photograph("png", other, 300))
            assert distance(far, bits) > 2 * plugin.FARTHEST


@pytest.mark.parametrize(
    ("content", "same"),
    [
        (photographs.oriented(6), "cat"),
        (photographs.mpo(), "cat"),
        (photographs.progressive_jpeg(), "cat"),
        (photographs.cmyk("jpg"), "coffee"),
        (photographs.cmyk("tif"), "coffee"),
        (photographs.grey_16_bit("png"), "camera"),
        (photographs.grey_16_bit_big_endian(), "camera"),
        (photographs.colour_16_bit(), "coffee"),
        (photographs.floating_point(), "camera"),
    ],
)
def test_a_picture_has_its_hash_in_every_form(bits_of, content, same):
    assert distance(bits_of(content), bits_of(photographs.photograph("png", same))) <= 5


@pytest.mark.parametrize(
    "content",
    [
        photographs.one_pixel("png"),
        photographs.bilevel(),
        photographs.palette("png"),
        photographs.transparent("png"),
        photographs.animated("webp"),
        photographs.unique("png", width=1, height=900),
    ],
)
def test_every_other_kind_has_one_too(bits_of, content):
    assert bits_of(content) == bits_of(content)


def test_flat_pictures_are_all_the_same(bits_of):
    for value in (1, 77, 255):
        flat = photographs.encode(PIL.Image.new("L", (50, 40), value), "png")
        assert bits_of(flat) == 1 << 63
    assert bits_of(photographs.encode(PIL.Image.new("L", (50, 40), 0), "png")) == 0


class Gallery:
    """An installation with `phash` alone, and uploads whose hashes are made up."""

    def __init__(self, workshop: Workshop):
        self.workshop = workshop
        self.client = workshop.app.test_client()
        self.bits = 0xC0FFEE1234567890

    def add(self, *hashes: int) -> list[str]:
        ids = self.workshop.upload(*(photographs.unique("png", n) for n in range(len(hashes))))
        for upload_id, bits in zip(ids, hashes, strict=True):
            data = bits.to_bytes(8, "big")
            new = NewVector(upload_id, "phash", plugin.Phash.version, *plugin.Phash.vectors, data)
            [vector_id] = self.workshop.web.database.vectors.add([new])
            result = {"hash": f"{bits:016x}"}
            self.set(upload_id, result=result, vectors={"bits": ObjectId(vector_id)})
        return ids

    def set(self, upload_id: str, **analysis: Any) -> None:
        """Write into the analysis of an upload, which has succeeded."""
        filename = f"{upload_id}.png"
        changes = {f"analyses.$.{key}": value for key, value in analysis.items()}
        change = {"$set": {**changes, "analyses.$.state": "succeeded"}}
        query = {"filename": filename, "analyses.name": "phash"}
        assert self.workshop.collection.update_one(query, change).modified_count == 1

    def similar(self, **query: Any) -> Any:
        return self.client.get("/api/x/phash/similar", query_string=query)


@pytest.fixture(scope="module")
def gallery(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    disabled = ",".join(name for name in FIRST_PARTY if name != "phash")
    folder = tmp_path_factory.mktemp("phash")
    with Workshop(folder, servers, PLUGINS_DISABLED=disabled) as workshop:
        yield Gallery(workshop)


def test_a_hash_is_found_over_http_from_an_upload_on(gallery):
    """From the bytes to the answer: nothing is made up."""
    workshop = gallery.workshop
    cat = photographs.picture("cat", 300)
    smaller = photographs.encode(cat.resize((200, 133)), "jpg", quality=60)
    contents = [photographs.encode(cat, "png"), smaller, photographs.photograph("png", "rocket")]
    ids = workshop.upload(*contents)
    running = workshop.worker()
    for upload_id in ids:
        assert workshop.end_of(upload_id, "phash").state == "succeeded"
    running.stop()
    answer = gallery.similar(upload_id=ids[0]).get_json()
    assert [one["id"] for one in answer["data"]] == [ids[1]]
    with gallery.client.get(answer["data"][0]["url"]) as file:
        assert file.data == smaller


def test_the_near_are_found_by_distance(gallery):
    near = [gallery.bits ^ sum(1 << 9 * n for n in range(count)) for count in range(9)]
    ids = gallery.add(*near)
    answer = gallery.similar(upload_id=ids[0])
    assert answer.status_code == 200
    found = answer.get_json()["data"]
    assert [(one["id"], one["distance"]) for one in found] == list(
        zip(ids[1:8], range(1, 8), strict=True)
    )
    found = gallery.similar(upload_id=ids[0], distance=3).get_json()["data"]
    assert [one["distance"] for one in found] == [1, 2, 3]
    found = gallery.similar(upload_id=ids[0], limit=2).get_json()["data"]
    assert [one["distance"] for one in found] == [1, 2]
    assert gallery.similar(upload_id=ids[0], distance=0).get_json()["data"] == []


def test_what_cannot_be_asked(gallery):
    [upload_id] = gallery.workshop.upload(photographs.unique("png", 99))
    for query, status, field in [
        ({}, 422, "upload_id"),
        ({"upload_id": "x"}, 422, "upload_id"),
        ({"upload_id": upload_id}, 404, None),  # it was not analyzed
        ({"upload_id": upload_id, "distance": 65}, 422, "distance"),
        ({"upload_id": upload_id, "distance": -1}, 422, "distance"),
        ({"upload_id": upload_id, "limit": 0}, 422, "limit"),
        ({"upload_id": UNKNOWN_ID}, 404, None),
    ]:
        answer = gallery.similar(**query)
        assert answer.status_code == status, query
        assert answer.content_type == PROBLEM
        assert list(answer.get_json().get("errors", [None])) == [field]


def test_hashes_from_before_there_were_vectors_are_found_without_another_look(gallery):
    """Those of version 1 have quarters beside the hash."""
    workshop = gallery.workshop
    ids = workshop.upload(*(photographs.unique("png", 200 + n) for n in range(2)))
    for upload_id, bits in zip(ids, (0x0F0F << 48, 0x0F1F << 48), strict=True):
        result = {"hash": f"{bits:016x}", "chunks": [0, 65536, 131072, 200000]}
        gallery.set(upload_id, result=result, version=1)
    workshop.collection.database["vector_spaces"].update_many({}, {"$unset": {"complete": ""}})
    for name in ids:
        (workshop.settings.upload_folder / f"{name}.png").write_bytes(b"nobody looks at it")
    upkeep = VectorUpkeep(workshop.web.database, workshop.web.plugin_manager)
    assert sum(upkeep.fill()) == 2
    [found] = gallery.similar(upload_id=ids[0]).get_json()["data"]
    assert (found["id"], found["distance"]) == (ids[1], 1)


def test_the_route_is_in_the_document(gallery):
    document = gallery.client.get("/openapi.json").get_json()
    operation = document["paths"]["/api/x/phash/similar"]["get"]
    assert operation["operationId"] == "phash_get_similar"
    assert {p["name"] for p in operation["parameters"]} == {"upload_id", "distance", "limit"}
    assert "AnalysisResult_phash" in document["components"]["schemas"]
