"""The text of a key: `clustr_`, 256 random bits and a checksum.

Scanners for leaked secrets find it by its beginning. With the checksum a typing error is
told from a key of another service without a look into the database.
"""

import re
import secrets
import string
import zlib
from hashlib import sha256

BEGINNING = "clustr_"
RANDOM_BITS = 256
# Digits of the base 62 that hold so many bits, and those of a CRC-32.
RANDOM_DIGITS = 43
CHECKSUM_DIGITS = 6
# So much of it is stored and shown, to find it by; 208 of the random bits are left.
PREFIX_LENGTH = len(BEGINNING) + 8

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FORM = re.compile(rf"{BEGINNING}[0-9A-Za-z]{{{RANDOM_DIGITS + CHECKSUM_DIGITS}}}")

# For documents; its checksum is wrong, so that nobody takes it for a key.
EXAMPLE = f"{BEGINNING}4f9JqX2mT7bKcVd0wZyR1sEuGhLpNa8oQtWiPxYkD3r000000"


def new_key() -> str:
    """Make a key that nobody can guess."""
    text = BEGINNING + _in_base_62(secrets.randbits(RANDOM_BITS), RANDOM_DIGITS)
    return text + _checksum(text)


def is_well_formed(key: str) -> bool:
    """Whether this can be a key: a slip in a single place makes it none."""
    if FORM.fullmatch(key) is None:
        return False
    return _checksum(key[:-CHECKSUM_DIGITS]) == key[-CHECKSUM_DIGITS:]


def prefix_of(key: str) -> str:
    """The part of a key that is stored as it is, by which it is found."""
    return key[:PREFIX_LENGTH]


def hash_of(key: str) -> str:
    """What is stored of a key. Guesses at 256 random bits need no slow hash to be kept off."""
    return sha256(key.encode()).hexdigest()


def _checksum(text: str) -> str:
    return _in_base_62(zlib.crc32(text.encode()), CHECKSUM_DIGITS)


def _in_base_62(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text
