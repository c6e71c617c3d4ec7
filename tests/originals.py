"""Folders of originals in tests."""

from pathlib import Path

from clustr.storage import LocalStorage

NAME = "692192f4e13f5a0c4d1b7a90.jpg"


def not_in_use() -> bool:
    return False


def never_asked() -> bool:
    raise AssertionError


def keep(storage: LocalStorage, content: bytes = b"content", filename: str = NAME) -> None:
    incoming = storage.receive(max_bytes=1000)
    try:
        incoming.write(content)
        storage.keep([(incoming, filename)])
    finally:
        incoming.close()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
