"""A client that a common generator makes of the OpenAPI document, with no line of it by hand."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import photographs
import pytest
from calling import get
from running import wait_until

PACKAGE = "clustr_client"
CONFIGURATION = {"post_hooks": []}


class Generated:
    """The client, and what its calls are given and answer."""

    def __init__(self, client: Any, folder: Path):
        self.folder = folder
        self.models: Any = import_module(f"{PACKAGE}.models")
        self.types: Any = import_module(f"{PACKAGE}.types")
        self._client = client

    def call(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """Call an operation, by its tag and name; the answer with status, headers and content."""
        module = import_module(f"{PACKAGE}.api.{operation}")
        return module.sync_detailed(*arguments, client=self._client, **named)

    def get(self, upload_id: str) -> Any:
        return self.call("uploads.get_upload", upload_id).parsed

    def page(self, **query: Any) -> Any:
        return self.call("uploads.list_uploads", **query).parsed

    def edit(self, upload_id: str, **words: Any) -> Any:
        return self.call("uploads.edit_upload", upload_id, body=self.models.Edit(**words))

    def upload(self, *contents: bytes) -> list[str]:
        """Upload files and wait for the end of their analyses; their ids."""
        files = [
            self.types.File(io.BytesIO(content), f"{number}.jpg", "image/jpeg")
            for number, content in enumerate(contents)
        ]
        body = self.models.UploadFilesBody(files=files)
        answer = self.call("uploads.upload_files", body=body)
        assert answer.status_code == 201
        ids = [one.id for one in answer.parsed.data]
        for each in ids:
            wait_until(lambda each=each: self.get(each).status == "processed", 60, "analyses")
        return ids


@pytest.fixture(scope="module")
def generated(service, tmp_path_factory) -> Iterator[Generated]:
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(get(service, "/openapi.json").content)
    (folder / "configuration.json").write_text(json.dumps(CONFIGURATION))
    subprocess.run(
        [
            Path(sys.executable).with_name("openapi-python-client"),
            "generate",
            "--path=openapi.json",
            "--config=configuration.json",
            "--meta=none",
            f"--output-path={PACKAGE}",
            "--fail-on-warning",
        ],
        cwd=folder,
        check=True,
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        with import_module(PACKAGE).Client(service.url, raise_on_unexpected_status=True) as client:
            yield Generated(client, folder / PACKAGE)


@pytest.fixture(scope="module")
def tagged(generated) -> tuple[str, list[str]]:
    """A tag that only these uploads have, and their ids, oldest first."""
    extensions = ["jpg", "png", "jpg", "webp", "jpg"]
    ids = generated.upload(*(photographs.unique(e, 900 + n) for n, e in enumerate(extensions)))
    tag = f"tag-{uuid4().hex}"
    for each in ids:
        words = generated.models.EditTagsType0(add=[tag])
        assert generated.edit(each, tags=words).status_code == 200
    return tag, ids


def test_it_has_every_operation_of_the_document(generated, service):
    document = get(service, "/openapi.json").json()
    described = {
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
    }
    modules = (generated.folder / "api").glob("*/*.py")
    assert {path.stem for path in modules} - {"__init__"} == described


def test_it_lists_and_walks_by_cursor(generated, tagged):
    tag, ids = tagged
    page = generated.page(tag=[tag], limit=2)
    assert (page.total, page.page) == (5, 1)
    found = [one.id for one in page.data]
    while page.next_cursor:
        page = generated.page(tag=[tag], limit=2, cursor=page.next_cursor)
        found += [one.id for one in page.data]
    assert found == ids[::-1]
    second = generated.page(tag=[tag], limit=2, page=2)
    assert [one.id for one in second.data] == found[2:4]


def test_it_filters(generated, tagged):
    tag, ids = tagged
    models = generated.models

    def matching(**query: Any) -> list[str]:
        return [one.id for one in generated.page(tag=[tag], **query).data]

    assert matching(content_type=models.ContentType.IMAGEPNG) == [ids[1]]
    assert matching(status=models.UploadStatus.PROCESSED) == ids[::-1]
    assert matching(status=models.UploadStatus.ERROR) == []
    assert matching(sort=models.UploadSort.UPLOAD_TIME) == ids
    hour = timedelta(hours=1)
    assert matching(uploaded_after=datetime.now(UTC) - hour) == ids[::-1]
    assert matching(uploaded_before=datetime.now(UTC) - hour) == []
    assert generated.page(tag=[tag, "nobody has this"]).data == []
    assert generated.page(tag=[tag], limit=1).data[0].dimensions == models.Dimensions(64, 48)


def test_it_patches(generated):
    [upload_id] = generated.upload(photographs.unique(number=910))
    models = generated.models
    before = generated.call("uploads.get_upload", upload_id)
    said, tags = before.parsed.caption, before.parsed.tags
    assert said
    assert tags
    words = models.Edit(caption="our cat", tags=models.EditTagsType0(set_=["cat", "sofa"]))
    version = {"if_match": before.headers["ETag"]}
    after = generated.call("uploads.edit_upload", upload_id, body=words, **version)
    assert after.status_code == 200
    assert (after.parsed.caption, after.parsed.tags) == ("our cat", ["cat", "sofa"])
    assert generated.get(upload_id) == after.parsed
    lost = generated.call("uploads.edit_upload", upload_id, body=words, **version)
    assert (lost.status_code, lost.parsed.status) == (412, 412)
    stale, true = (f'"{one.parsed.version}"' for one in (before, after))
    kept = generated.call("uploads.remove_upload", upload_id, if_match=stale)
    assert (kept.status_code, kept.parsed.status) == (412, 412)
    again = generated.call("uploads.edit_upload", upload_id, body=words, if_match=true)
    assert again.status_code == 200
    taken_back = generated.edit(upload_id, caption=None, tags=None)
    assert (taken_back.parsed.caption, taken_back.parsed.tags) == (said, tags)


def test_it_deletes_and_restores(generated):
    [upload_id] = generated.upload(photographs.unique(number=911))
    before = generated.get(upload_id)
    for permanently, again in ((False, 200), (True, 404)):
        removed = generated.call("uploads.remove_upload", upload_id, permanently=permanently)
        assert removed.status_code == 204
        assert generated.call("uploads.get_upload", upload_id).status_code == 404
        in_trash = [one.id for one in generated.call("trash.list_trash", limit=100).parsed.data]
        assert (upload_id in in_trash) is not permanently
        restored = generated.call("uploads.restore_upload", upload_id)
        assert restored.status_code == again
        if again == 200:
            changed = {"updated_at": restored.parsed.updated_at.isoformat()}
            assert restored.parsed.to_dict() == before.to_dict() | changed


def test_it_changes_many_at_once(generated, tagged):
    tag, ids = tagged
    models = generated.models
    order = models.BulkOrder(
        action=models.BulkAction.UNTAG,
        ids=ids,
        tags=[tag],
        dry_run=True,
    )
    answer = generated.call("uploads.change_uploads", body=order)
    assert (answer.status_code, answer.parsed.matched) == (200, len(ids))
    order.dry_run = False
    job = generated.call("uploads.change_uploads", body=order).parsed

    def is_done() -> bool:
        return generated.call("jobs.get_job", job.id).parsed.state == "succeeded"

    wait_until(is_done, 60, "the end of the job")
    assert generated.page(tag=[tag]).data == []


def test_it_gets_images(generated):
    content = photographs.photograph("jpg", "rocket", 640)
    [upload_id] = generated.upload(content)
    answer = generated.call("files.get_original", upload_id)
    assert answer.parsed.payload.read() == content
    small = generated.call("files.get_thumbnail", upload_id, size=100)
    assert small.headers["Content-Type"] == "image/jpeg"
    assert len(small.parsed.payload.read()) < len(content)
