"""Names under which files can be saved on every system."""

import re
from collections.abc import Collection

# Characters that Windows or Unix forbid in names, path separators among them.
FORBIDDEN_CHARACTERS = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED_NAMES = re.compile(
    "(con|prn|aux|nul|conin\\$|conout\\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *([.]|\\Z)",
    re.IGNORECASE,
)
LONGEST_NAME_BYTES = 255  # the limit of most file systems


def safe_file_name(
    name: str,
    true_extension: str,
    extensions: Collection[str],
    longest_bytes: int = LONGEST_NAME_BYTES,
) -> str:
    """Return a safe name under which to save an image.

    It ends in an extension of its true type, so that it opens as an image, does not begin with a
    dot, and is none of the names that Windows reserves for devices, with or without extension.

    Args:
        true_extension: that of its format, without a dot.
        extensions: all of its format, in lower case.
    """
    name = FORBIDDEN_CHARACTERS.sub("_", name).strip(". ") or "unnamed"
    if RESERVED_NAMES.match(name):
        name = f"_{name}"
    stem, dot, extension = name.rpartition(".")
    if not dot or extension.lower() not in extensions:
        stem, extension = name, true_extension
    max_stem_bytes = longest_bytes - len(extension) - 1
    return f"{stem.encode()[:max_stem_bytes].decode(errors='ignore')}.{extension}"
