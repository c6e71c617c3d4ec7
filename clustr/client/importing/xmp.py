"""Words in sidecars of XMP (ISO 16684-1), as darktable, digiKam and Lightroom write them."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from xml.etree import ElementTree

from clustr.client.importing.errors import UnreadableFile
from clustr.client.importing.words import Words

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
TITLE, DESCRIPTION, SUBJECT = (
    f"{{http://purl.org/dc/elements/1.1/}}{name}" for name in ("title", "description", "subject")
)
# When the picture was made; the first that is there counts.
DATES = (
    "{http://ns.adobe.com/photoshop/1.0/}DateCreated",
    "{http://ns.adobe.com/exif/1.0/}DateTimeOriginal",
    "{http://ns.adobe.com/xap/1.0/}CreateDate",
)
META = "{adobe:ns:meta/}"
TOOLKIT = f"{META}xmptk"
# These are of the whole process: one that is registered again is missing for a moment.
for prefix, name in {"x": META, "rdf": RDF, "dc": TITLE, "photoshop": DATES[0]}.items():
    ElementTree.register_namespace(prefix, name[1:].partition("}")[0])
OWN = "Clustr"
# XML 1.0 cannot have them.
NO_CHARACTERS = {0xFFFE: None, 0xFFFF: None}
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
DEFAULT_LANGUAGE = "x-default"
# A date with its day, as in ISO 8601, or with the colons of EXIF.
DATE = re.compile(
    r"([12][0-9]{3})[-:]([0-9]{2})[-:]([0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?))?"
)


def read_xmp(content: bytes) -> Words:
    """Read title, description, keywords and date.

    One that declares a document type is not read: so there are no entities, and nothing elsewhere
    is looked at. In every encoding that is read its beginning is written in the same bytes.

    Raises:
        UnreadableFile: it is no XML.
    """
    if b"\0" in content or b"<!DOCTYPE" in content:
        raise UnreadableFile("it is no XMP in UTF-8, or declares a document type")
    try:
        document = ElementTree.fromstring(content)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last: its encoding
        raise UnreadableFile(f"it is no XML: {error}") from error
    rdf = next(document.iter(f"{RDF}RDF"), None)
    about = [] if rdf is None else rdf.findall(f"{RDF}Description")
    title, description = (next(_texts(about, name), "") for name in (TITLE, DESCRIPTION))
    return Words(
        caption=_join(title, description),
        tags=tuple(_texts(about, SUBJECT)),
        taken_at=next(filter(None, (_date(t) for name in DATES for t in _texts(about, name))), ""),
    )


def write_xmp(words: Words) -> bytes:
    """Write what `read_xmp` reads, with Clustr as the program that wrote it."""
    document = ElementTree.Element(f"{META}xmpmeta", {TOOLKIT: OWN})
    rdf = ElementTree.SubElement(document, f"{RDF}RDF")
    about = ElementTree.SubElement(rdf, f"{RDF}Description", {f"{RDF}about": ""})
    if words.caption:
        _write_list(about, DESCRIPTION, "Alt", [words.caption], {LANGUAGE: DEFAULT_LANGUAGE})
    if words.tags:
        _write_list(about, SUBJECT, "Bag", words.tags, {})
    if words.taken_at:
        ElementTree.SubElement(about, DATES[0]).text = words.taken_at
    ElementTree.indent(document)
    content: bytes = ElementTree.tostring(document, encoding="utf-8", xml_declaration=True)
    return content


def is_own(content: bytes) -> bool:
    """Whether `write_xmp` has written a sidecar; other programs name themselves in theirs."""
    return f'x:xmptk="{OWN}"'.encode() in content


def _write_list(
    about: ElementTree.Element,
    name: str,
    kind: str,
    texts: Sequence[str],
    attributes: dict[str, str],
) -> None:
    listed = ElementTree.SubElement(ElementTree.SubElement(about, name), f"{RDF}{kind}")
    for text in texts:
        item = ElementTree.SubElement(listed, f"{RDF}li", attributes)
        item.text = text.translate(NO_CHARACTERS)


def _texts(about: Sequence[ElementTree.Element], name: str) -> Iterator[str]:
    """What is said under a name, in an attribute, element or list; the default language first."""
    for description in about:
        yield from filter(None, [description.get(name, "").strip()])
        for element in description.findall(name):
            listed = element.findall(f"*/{RDF}li")
            listed.sort(key=lambda item: item.get(LANGUAGE) != DEFAULT_LANGUAGE)
            texts = [(item.text or "").strip() for item in listed or [element]]
            yield from filter(None, texts)


def _join(title: str, description: str) -> str:
    """Both as one caption, and only one where it has the other in it."""
    if title in description:
        return description
    return f"{title}: {description}" if description else title


def _date(text: str) -> str:
    """The date in ISO 8601; empty when it is none, or has no day."""
    if not (found := DATE.fullmatch(text)):
        return ""
    year, month, day, time = found.groups()
    try:
        return datetime.fromisoformat(f"{year}-{month}-{day}T{time or '00:00'}").isoformat()
    except ValueError:
        return ""
