"""When a photograph was taken, as XMP data and the texts of a PNG say it."""

import odd_images
import pytest
from exif_data import (
    NO_DATE,
    Analyze,
    analyzes,
    date,
    date_of,
    described,
    png_ending_with,
    text_chunk,
    with_xmp,
    xmp,
    xmp_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.fixture(scope="module")
def analyze(tmp_path_factory: pytest.TempPathFactory) -> Analyze:
    return analyzes(tmp_path_factory.mktemp("dates"))


# Text in ISO 8601 and in RFC 1123.


@pytest.mark.parametrize(
    ("written", "local", "offset"),
    [
        ("2019-03-05T07:08:09+01:00", "2019-03-05T07:08:09", "+01:00"),
        ("2019-03-05T07:08:09.25-0330", "2019-03-05T07:08:09.250", "-03:30"),
        ("2019-03-05T07:08:09Z", "2019-03-05T07:08:09", "+00:00"),
        ("2019-03-05T07:08+01:00", "2019-03-05T07:08:00", "+01:00"),
        ("2019-03-05T07:08:09", "2019-03-05T07:08:09", None),
        ("2019-03-05T07:08:09+99:00", "2019-03-05T07:08:09", None),
        ("2019:03:05 07:08:09", "2019-03-05T07:08:09", None),
        (" 2019-03-05\n", "2019-03-05T00:00:00", None),
        ("1825-03-05T07:08:09Z", "1825-03-05T07:08:09", "+00:00"),
        ("2019-03", None, None),
        ("2019", None, None),
        ("2019-02-29T07:08:09Z", None, None),
        ("2019-03-05T24:00:00Z", None, None),
        ("2019-03-05T07:08:09 Europe/Berlin", None, None),
        ("0000-00-00T00:00:00", None, None),
        ("٢٠١٩-٠٣-٠٥T٠٧:٠٨:٠٩", None, None),  # noqa: RUF001
        ("$where", None, None),
        ("", None, None),
    ],
)
def test_dates_in_xmp(analyze, written, local, offset):
    result = date_of(analyze, with_xmp(xmp(f'photoshop:DateCreated="{written}"')))
    assert (result["taken_at_local"], result["utc_offset"]) == (local, offset)
    if local is None:
        assert result == NO_DATE
    else:
        assert result["source"] == "xmp"
        assert result["offset_source"] == ("xmp" if offset else "setting")


@pytest.mark.parametrize(
    ("written", "local", "offset"),
    [
        ("2019-03-05T07:08:09+01:00", "2019-03-05T07:08:09", "+01:00"),
        ("2019:03:05 07:08:09", "2019-03-05T07:08:09", None),
        ("Tue, 05 Mar 2019 07:08:09 +0100", "2019-03-05T07:08:09", "+01:00"),
        ("Tue, 5 Mar 2019 07:08:09 GMT", "2019-03-05T07:08:09", "+00:00"),
        ("05 Mar 2019 07:08", "2019-03-05T07:08:00", None),
        ("05 Mae 2019 07:08", None, None),
        ("31 Feb 2019 07:08:09", None, None),
        ("yesterday", None, None),
    ],
)
@pytest.mark.parametrize(
    ("kind", "compressed"), [(b"tEXt", False), (b"zTXt", True), (b"iTXt", False), (b"iTXt", True)]
)
def test_creation_time_of_a_png(analyze, kind, compressed, written, local, offset):
    chunk = text_chunk(kind, b"Creation Time", written.encode(), compressed)
    for each in (odd_images.png_with(chunk), png_ending_with(chunk)):
        result = date_of(analyze, each)
        assert (result["taken_at_local"], result["utc_offset"]) == (local, offset)
        assert result["source"] == (local and "png_creation_time")
        assert result["offset_source"] == (local and ("png_creation_time" if offset else "setting"))


# XMP.


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_xmp_in_every_format(analyze, extension):
    content = with_xmp(
        xmp('photoshop:DateCreated="2019-03-05T07:08:09+01:00"'), extension=extension
    )
    expected = date("2019-03-05T06:08:09Z", "2019-03-05T07:08:09", "+01:00", "xmp", "xmp")
    assert date_of(analyze, content) == expected


@pytest.mark.parametrize(
    "packet",
    [
        xmp('exif:DateTimeOriginal="2019-03-05T07:08:09+01:00"'),
        xmp(elements="<exif:DateTimeOriginal>2019-03-05T07:08:09+01:00</exif:DateTimeOriginal>"),
        xmp('photoshop:DateCreated="2019"  exif:DateTimeOriginal="2019-03-05T07:08:09+01:00"'),
        xmp(
            'photoshop:DateCreated="2019-03-05T07:08:09+01:00" '
            'exif:DateTimeOriginal="2020-01-01T00:00:00Z"'
        ),
        xmp('photoshop:DateCreated="2019-03-05T07:08:09&#43;01:00"'),
        xmp('photoshop:DateCreated="2019-03-05T07:08:09+01:00"')
        .replace(b"photoshop:", b"other:")
        .replace(b"xmlns:photoshop", b"xmlns:other"),
        xmp_of(described(), described('photoshop:DateCreated="2019-03-05T07:08:09+01:00"')),
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        + xmp('photoshop:DateCreated="2019-03-05T07:08:09+01:00"')
        + b" " * 2000
        + b'<?xpacket end="w"?>\0',
    ],
    ids=[
        "attribute",
        "element",
        "no day",
        "both",
        "character",
        "prefix",
        "two descriptions",
        "packet",
    ],
)
def test_dates_are_found_in_xmp(analyze, packet):
    expected = date("2019-03-05T06:08:09Z", "2019-03-05T07:08:09", "+01:00", "xmp", "xmp")
    assert date_of(analyze, with_xmp(packet)) == expected


DATE_CREATED = 'photoshop:DateCreated="2019-03-05T07:08:09Z"'


@pytest.mark.parametrize(
    "packet",
    [
        b"no XML",
        b"<x",
        xmp(DATE_CREATED)[:-1],
        xmp(DATE_CREATED).replace(b"ns.adobe.com/photoshop", b"example.com/photoshop"),
        xmp(DATE_CREATED).replace(b"rdf-syntax-ns", b"another"),
        xmp(elements=f"<xmpMM:Pantry><rdf:Description {DATE_CREATED}/></xmpMM:Pantry>"),
        b"<!DOCTYPE x>" + xmp(DATE_CREATED),
        b'<!DOCTYPE x [<!ENTITY date "2019-03-05T07:08:09Z">]>'
        + xmp('photoshop:DateCreated="&date;"'),
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">' + xmp(DATE_CREATED),
        b'<?xml version="1.0" encoding="no-encoding"?>' + xmp(DATE_CREATED),
        b'<?xml version="1.0" encoding="rot13"?>' + xmp(DATE_CREATED),
        xmp(DATE_CREATED).replace(b"2019", b"\xff\xfe19"),
    ],
)
def test_xmp_that_says_nothing_of_the_picture(analyze, packet):
    assert date_of(analyze, with_xmp(packet)) == NO_DATE


@pytest.mark.parametrize(("padding", "source"), [(900_000, "xmp"), (2**20, None)])
@pytest.mark.parametrize("compressed", [False, True])
def test_xmp_of_a_megabyte_is_the_most(analyze, padding, compressed, source):
    packet = xmp(DATE_CREATED) + b" " * padding
    chunk = text_chunk(b"iTXt", b"XML:com.adobe.xmp", packet, compressed)
    assert date_of(analyze, png_ending_with(chunk))["source"] == source
    assert date_of(analyze, with_xmp(packet, extension="webp"))["source"] == source
    assert date_of(analyze, with_xmp(packet, extension="tif"))["source"] == source


@pytest.mark.parametrize(
    "packet",
    [
        b"<a>" * 300_000,
        xmp(elements="<a>" * 100_000 + "</a>" * 100_000),
        xmp(" ".join(f'a{n}=""' for n in range(70_000))),
        xmp(elements="<exif:DateTimeOriginal>" + "1" * 900_000 + "</exif:DateTimeOriginal>"),
        xmp('photoshop:DateCreated="2019-03-05T07:08:09.' + "1" * 900_000 + '"'),
        b'<!DOCTYPE a [<!ENTITY a "a"><!ENTITY b "'
        + b"&a;" * 100_000
        + b'"><!ENTITY c "'
        + b"&b;" * 100_000
        + b'">]><a>&c;</a>',
    ],
    ids=["open", "deep", "attributes", "digits", "fraction", "entities"],
)
def test_xmp_that_takes_long(analyze, packet):
    assert len(packet) < 2**20
    analyze(with_xmp(packet, extension="webp"))


def test_a_text_of_a_png_that_unpacks_into_much(analyze):
    chunk = text_chunk(b"zTXt", b"Creation Time", b"2019" + bytes(200_000_000), compressed=True)
    assert date_of(analyze, png_ending_with(chunk)) == NO_DATE


@pytest.mark.parametrize("length", range(0, 20))
def test_texts_of_a_png_that_end_anywhere(analyze, length):
    for kind in (b"tEXt", b"zTXt", b"iTXt"):
        for compressed in (False, True):
            whole = text_chunk(kind, b"Creation Time", b"2019-03-05", compressed)[8:-4]
            chunk = odd_images.chunk(kind, whole[: len(b"Creation Time") + length])
            analyze(odd_images.png_with(chunk))
