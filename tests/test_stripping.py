"""Copies of pictures without metadata, or without the place: what goes, and what stays."""

import io
import itertools
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import exif_data
import odd_images
import photographs
import places
import pytest
from PIL import Image, ImageSequence
from PIL.ExifTags import Base

from clustr.domain.errors import MetadataNotRemovable
from clustr.domain.models import FilesMetadata
from clustr.imaging.formats import FORMATS
from clustr.imaging.images import inspect, open_displayed
from clustr.imaging.stripping import strip

pytestmark = pytest.mark.usefixtures("prepared")

STRIP, STRIP_LOCATION = FilesMetadata.STRIP, FilesMetadata.STRIP_LOCATION
KINDS = (STRIP, STRIP_LOCATION)


def stripped(folder: Path, content: bytes, extension: str, kind: FilesMetadata) -> bytes:
    path = folder / "original"
    path.write_bytes(content)
    with path.open("rb") as file:
        return b"".join(strip(file, extension, kind))


def displayed(folder: Path, content: bytes) -> tuple[Any, ...]:
    """What a person sees: the picture in its colors, turned, and how an animation moves."""
    path = folder / "picture"
    path.write_bytes(content)
    picture = open_displayed(path)
    with Image.open(path) as image:
        frames = []
        if image.format not in ("JPEG", "MPO"):  # Other pictures of an MPO are no frames.
            with suppress(OSError):  # There are fewer than the file says.
                for frame in itertools.islice(ImageSequence.Iterator(image), 3):
                    duration = frame.info.get("duration")
                    frames.append((frame.size, frame.mode, frame.tobytes(), duration))
        return picture.size, picture.tobytes(), frames, image.info.get("loop"), profile_of(image)


def profile_of(image: Image.Image) -> bytes | None:
    profile: bytes | None = image.info.get("icc_profile")
    return profile


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extension", places.PICTURES)
def test_the_place_is_nowhere_and_the_picture_is_the_same(tmp_path, extension, kind):
    content = places.PICTURES[extension]()
    assert places.SECRET in content
    copy = stripped(tmp_path, content, extension, kind)
    assert not places.says_place(copy)
    assert displayed(tmp_path, copy) == displayed(tmp_path, content)
    assert stripped(tmp_path, copy, extension, kind) == copy


@pytest.mark.parametrize("kind", KINDS)
def test_an_animated_avif_moves_on(tmp_path, kind):
    content = places.animated_avif()
    copy = stripped(tmp_path, content, "avif", kind)
    assert not places.says_place(copy)
    seen = displayed(tmp_path, content)
    assert len(seen[2]) == 3
    assert displayed(tmp_path, copy) == seen


@pytest.mark.parametrize("extension", places.TURNED)
def test_the_color_profile_stays(tmp_path, extension):
    copy = stripped(tmp_path, places.PICTURES[extension](), extension, STRIP)
    with Image.open(io.BytesIO(copy)) as image:
        assert profile_of(image) == places.PROFILE


@pytest.mark.parametrize("extension", places.TURNED)
def test_without_metadata_only_the_orientation_stays(tmp_path, extension):
    copy = stripped(tmp_path, places.PICTURES[extension](), extension, STRIP)
    with Image.open(io.BytesIO(copy)) as image:
        written = dict(image.getexif())
        assert written[Base.Orientation] == places.ORIENTATION
        assert Base.Make not in written
        assert image.getexif().get_ifd(Base.ExifOffset) == {}


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif", "avif", "heic"])
def test_without_metadata_no_owner_and_no_serial_number_stays(tmp_path, extension):
    content = places.PICTURES[extension]()
    copy = stripped(tmp_path, content, extension, STRIP)
    for text in (b"FUJIFILM", b"2024:05:01", b"SECRET-1", b"SECRET-2", b"Zoe the owner"):
        assert text in content
        assert text not in copy


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif", "avif", "heic"])
def test_without_the_place_it_is_still_said_how_a_picture_was_taken(tmp_path, extension):
    analyze = exif_data.analyzes(tmp_path)
    copy = stripped(tmp_path, places.PICTURES[extension](), extension, STRIP_LOCATION)
    found, expected = analyze(copy), analyze(places.PICTURES[extension]())
    assert expected["gps"]
    assert found == expected | {"gps": None, "orientation": found["orientation"]}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_every_orientation_stays(tmp_path, extension, orientation):
    content = photographs.oriented(orientation, extension)
    copy = stripped(tmp_path, content, extension, STRIP)
    assert displayed(tmp_path, copy) == displayed(tmp_path, content)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_an_orientation_that_only_xmp_states_stays(tmp_path, extension):
    packet = exif_data.xmp('xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"')
    content = exif_data.with_xmp(packet, extension=extension)
    copy = stripped(tmp_path, content, extension, STRIP)
    assert packet not in copy
    seen = displayed(tmp_path, content)
    assert seen[0][0] < seen[0][1]
    assert displayed(tmp_path, copy) == seen


MORE = {
    "an orientation behind the pixels": photographs.oriented_behind_pixels,
    "64 kB of EXIF data": photographs.huge_exif,
    "EXIF data that are nonsense": photographs.broken_exif,
    "several pictures": photographs.mpo,
    "big-endian": photographs.grey_16_bit_big_endian,
    "fractions": photographs.floating_point,
    "one bit": photographs.bilevel,
    "strips of JPEG": lambda: photographs.compressed_tiff("jpeg"),
    "strips of LZW": photographs.compressed_tiff,
    "clear": lambda: photographs.transparent("webp"),
}


@pytest.mark.parametrize("name", [*odd_images.ACCEPTED, *MORE])
def test_odd_pictures_look_the_same(tmp_path, name):
    content = MORE[name]() if name in MORE else odd_images.odd(name)
    with io.FileIO(tmp_path / "odd", "w+") as file:
        file.write(content)
        extension = inspect(file, FORMATS).format.extension
    seen = displayed(tmp_path, content)
    for kind in KINDS:
        assert displayed(tmp_path, stripped(tmp_path, content, extension, kind)) == seen


def test_what_cannot_be_told_from_the_picture_is_refused(tmp_path):
    avif = places.animated_avif()
    track = avif.index(b"moov")
    with_sound = avif[:track] + avif[track:].replace(b"pict", b"soun")
    tables = odd_images.tiff((519, 4, 1, 8))
    external = bytearray(odd_images.HEIC_WITH_EXIF)
    external[external.index(b"iloc") + 15] = 1  # The first item is in another file.
    for content, extension in (
        (with_sound, "avif"),
        (tables, "tif"),
        (bytes(external), "heic"),
        (b"no boxes at all", "heic"),
    ):
        with pytest.raises(MetadataNotRemovable):
            stripped(tmp_path, content, extension, STRIP)


@pytest.mark.parametrize("extension", places.PICTURES)
def test_broken_files_are_copied_or_refused(tmp_path, extension):
    """Nothing else is raised, whatever is in a file."""
    chance = random.Random(7)
    whole = places.PICTURES[extension]()
    for number in range(100):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(min(len(content), 4000))] = chance.choice([0, 1, 128, 255])
        cut = content[: chance.randrange(len(content))] if number % 5 == 0 else content
        with suppress(MetadataNotRemovable):
            stripped(tmp_path, bytes(cut), extension, KINDS[number % 2])
