"""Pictures that say wherever they can where they were taken."""

import io
import struct

import color_profiles
import exif_data
import odd_images
import photographs
from PIL import Image
from PIL.ExifTags import GPS, Base
from PIL.PngImagePlugin import PngInfo

SECRET = b"48,51.4N 2,21.1E"
TEXT = SECRET.decode()
ORIENTATION = 6
PROFILE = color_profiles.rgb("Display P3", color_profiles.DISPLAY_P3, color_profiles.srgb_curve)
CAMERA = exif_data.CAMERA | {
    Base.Orientation: ORIENTATION,
    Base.ImageDescription: TEXT,
    Base.XPComment: TEXT.encode("utf-16-le"),
}
PHOTOGRAPH = exif_data.PHOTOGRAPH | {Base.MakerNote: SECRET, Base.UserComment: SECRET}
PLACE = exif_data.PLACE | {GPS.GPSAreaInformation: SECRET, GPS.GPSMapDatum: TEXT}
EXIF = exif_data.exif(CAMERA, PHOTOGRAPH, PLACE)
BLOCK = EXIF.tobytes()
XMP = exif_data.xmp(f'exif:GPSLatitude="{TEXT}"')
PICTURE = photographs.picture("cat", 64)
MOVING = [PICTURE, PICTURE.rotate(10), PICTURE.rotate(20)]


def save(pillow: str, **options: object) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, pillow, icc_profile=PROFILE, **options)
    return file.getvalue()


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def jpeg() -> bytes:
    """With all segments of metadata, and with a second picture and a video behind the first."""
    content = save("JPEG", exif=BLOCK, xmp=XMP, comment=SECRET, progressive=True)
    extended = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + SECRET
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(SECRET)) + SECRET
    more = [(0xE1, extended), (0xE2, b"FPXR\0" + SECRET), (0xED, iptc), (0xEB, SECRET)]
    behind = save("JPEG", exif=BLOCK) + box(b"ftyp", b"mp42") + box(b"moov", SECRET)
    last_scan = content.rindex(b"\xff\xda")
    between = content[:last_scan] + odd_images.segment(0xFE, SECRET) + content[last_scan:]
    segments = b"".join(odd_images.segment(*each) for each in more)
    return between[:2] + segments + between[2:] + behind


def png() -> bytes:
    """An animation with all chunks of metadata, also behind the pixels."""
    texts = PngInfo()
    texts.add_text("Comment", TEXT)
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options = {"exif": BLOCK, "pnginfo": texts, "save_all": True, "append_images": MOVING[1:]}
    content = save("PNG", **options)
    more = odd_images.chunk(b"prVt", SECRET) + odd_images.chunk(b"tEXt", b"Title\0" + SECRET)
    return content[:-12] + more + content[-12:] + SECRET


def webp() -> bytes:
    """An animation."""
    options = {"exif": BLOCK, "xmp": XMP, "save_all": True, "append_images": MOVING[1:]}
    content = save("WEBP", **options)
    unknown = b"PLCE" + struct.pack("<I", len(SECRET)) + SECRET
    return content + unknown + SECRET


def bmp() -> bytes:
    return photographs.encode(PICTURE, "bmp") + SECRET


def tiff() -> bytes:
    """Two pages, each with tags of metadata."""
    tags = exif_data.exif(CAMERA, PHOTOGRAPH, PLACE)
    tags.update({Base.XMLPacket: XMP, Base.IPTCNAA: SECRET, Base.ImageResources: SECRET})
    tags.update({Base.DocumentName: TEXT, Base.PageName: TEXT, 65000: SECRET})
    return save("TIFF", exif=tags, save_all=True, append_images=MOVING[1:2]) + SECRET


def gif() -> bytes:
    """An animation."""
    file = io.BytesIO()
    options = {"save_all": True, "append_images": MOVING[1:], "loop": 3, "duration": 80}
    PICTURE.save(file, "GIF", comment=SECRET, **options)
    content = file.getvalue()
    magic = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    extension = b"!\xff\x0bXMP DataXMP" + XMP + magic
    return content[:-1] + extension + b"!\xfe\x10" + SECRET + b"\0;" + SECRET


def avif() -> bytes:
    return save("AVIF", exif=BLOCK, xmp=XMP) + box(b"uuid", SECRET) + SECRET


def animated_avif() -> bytes:
    options = {"save_all": True, "append_images": MOVING[1:], "duration": 80}
    upright = exif_data.exif(CAMERA | {Base.Orientation: 1}, PHOTOGRAPH, PLACE)
    return save("AVIF", exif=upright.tobytes(), xmp=XMP, **options) + box(b"uuid", SECRET)


def heic() -> bytes:
    """With other EXIF data, which are in a box behind, and with a video as phones add it."""
    picture = odd_images.HEIC_WITH_EXIF
    begin = picture.rindex(b"Exif\0\0") - 4
    place = struct.pack(">IHII", begin, 1, 0, len(picture) - begin)  # ItemLocationBox
    assert picture.count(place) == 1
    content = bytes([0, 0, 0, 6]) + BLOCK
    moved = picture.replace(place, struct.pack(">IHII", len(picture) + 8, 1, 0, len(content)))
    return moved + box(b"mdat", content) + box(b"mpvd", SECRET) + SECRET


PICTURES = {
    "jpg": jpeg,
    "png": png,
    "webp": webp,
    "bmp": bmp,
    "tif": tiff,
    "gif": gif,
    "avif": avif,
    "heic": heic,
}
TURNED = ("jpg", "png", "webp", "tif")  # whose EXIF data say how they are turned


def says_place(content: bytes) -> bool:
    """Whether the place is anywhere in a file, in words or in EXIF data."""
    if SECRET in content or TEXT.encode("utf-16-le") in content:
        return True
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return bool(image.getexif().get_ifd(0x8825))
