"""The EXIF data of a copy: written anew from the tags that are kept."""

from collections.abc import Collection
from dataclasses import dataclass

from PIL import Image
from PIL.ExifTags import IFD, Base

from clustr import logs
from clustr.domain.models import FilesMetadata
from clustr.imaging.decoding import TRANSPOSITIONS

log = logs.logger(__name__)

PREFIX = b"Exif\0\0"

# What is kept where only the place is removed. Free texts are not among it, because people and
# programs write places into them, nor is what only its maker can read.
CAMERA_TAGS = (
    *(Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright),
    *(Base.XResolution, Base.YResolution, Base.ResolutionUnit, Base.YCbCrPositioning),
)
PHOTOGRAPH_TAGS = (
    *(Base.ExposureTime, Base.FNumber, Base.ExposureProgram, Base.ISOSpeedRatings),
    *(Base.SensitivityType, Base.StandardOutputSensitivity, Base.RecommendedExposureIndex),
    *(Base.ExifVersion, Base.DateTimeOriginal, Base.DateTimeDigitized),
    *(Base.OffsetTime, Base.OffsetTimeOriginal, Base.OffsetTimeDigitized),
    *(Base.SubsecTime, Base.SubsecTimeOriginal, Base.SubsecTimeDigitized),
    *(Base.ShutterSpeedValue, Base.ApertureValue, Base.BrightnessValue, Base.ExposureBiasValue),
    *(Base.MaxApertureValue, Base.SubjectDistance, Base.MeteringMode, Base.LightSource),
    *(Base.Flash, Base.FocalLength, Base.FlashPixVersion, Base.ColorSpace, Base.ExifImageWidth),
    *(Base.ExifImageHeight, Base.SensingMethod, Base.FileSource, Base.SceneType),
    *(Base.CustomRendered, Base.ExposureMode, Base.WhiteBalance, Base.DigitalZoomRatio),
    *(Base.FocalLengthIn35mmFilm, Base.SceneCaptureType, Base.GainControl, Base.Contrast),
    *(Base.Saturation, Base.Sharpness, Base.SubjectDistanceRange, Base.LensSpecification),
    *(Base.LensMake, Base.LensModel, Base.CompositeImage),
)
UPRIGHT = 1


@dataclass(slots=True)
class Metadata:
    """The metadata of a picture, as far as it decides how the picture is turned.

    Attributes:
        exif: its EXIF data.
        xmp: its XMP data.
        raw_profile: the EXIF data that ImageMagick writes into a PNG as text.
    """

    exif: bytes = b""
    xmp: bytes = b""
    raw_profile: str = ""


def kept_exif(metadata: Metadata, kind: FilesMetadata, with_orientation: bool = True) -> bytes:
    """The EXIF data of a copy.

    Args:
        with_orientation: whether the orientation counts, by which Clustr displays the picture.

    Returns:
        the block from its byte order on; empty when nothing is kept.
    """
    source = _read(metadata)
    orientation = source.get(Base.Orientation, UPRIGHT) if with_orientation else UPRIGHT
    turned: dict[int, object] = {}
    if orientation in TRANSPOSITIONS:
        turned[Base.Orientation] = orientation
    if kind is FilesMetadata.STRIP_LOCATION:
        try:
            return _write(source, turned)
        except Exception as error:  # Pillow raises many things on broken EXIF data.
            log.info("exif_left_out", error=repr(error))
    return _write(Image.Exif(), turned)


def _read(metadata: Metadata) -> Image.Exif:
    """Read it as Pillow does for a picture that is displayed."""
    picture = Image.new("1", (1, 1))
    if metadata.exif:
        picture.info["exif"] = metadata.exif
    if metadata.raw_profile:
        picture.info["Raw profile type exif"] = metadata.raw_profile
    if metadata.xmp:
        picture.info["xmp"] = metadata.xmp
    try:
        return picture.getexif()
    except Exception:  # Broken EXIF data costs only the orientation, as in `decoding.upright`.
        return Image.Exif()


def _write(source: Image.Exif, turned: dict[int, object]) -> bytes:
    kept = Image.Exif()
    # Pillow reads every byte of a text as a character, and would write some of them as `?`.
    camera = {
        tag: value.encode("latin-1") if isinstance(value, str) else value
        for tag, value in _chosen(source, CAMERA_TAGS).items()
    }
    kept.update(camera | turned)
    photograph = _chosen(source.get_ifd(IFD.Exif), PHOTOGRAPH_TAGS)
    if photograph:
        kept.get_ifd(IFD.Exif).update(photograph)
    return kept.tobytes().removeprefix(PREFIX) if kept or photograph else b""


def _chosen(source: Image.Exif | dict[int, object], tags: Collection[int]) -> dict[int, object]:
    return {tag: source[tag] for tag in tags if tag in source}
