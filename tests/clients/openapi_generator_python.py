"""The walk of `walk.ts`, with the client that openapi-generator makes for Python.

python openapi_generator_python.py URL FILE...
"""

import sys
import time
from pathlib import Path
from uuid import uuid4

import openapi_client as client
from openapi_client.exceptions import ApiException


def main(url: str, files: list[str]) -> None:
    connection = client.ApiClient(client.Configuration(host=url))
    api, bytes_of = client.UploadsApi(connection), client.FilesApi(connection)
    tag = f"walk {uuid4()}"
    ids: list[str] = []
    for file in files:
        content = Path(file).read_bytes()
        upload_id = api.upload_files([(Path(file).name, content)]).data[0].id
        while api.get_upload(upload_id).status == "pending":
            time.sleep(0.05)
        analysis = api.run_analysis(upload_id, "dimensions", var_if="missing")
        assert analysis.status == "succeeded", "the analysis was run once more"
        version = api.get_upload_with_http_info(upload_id).headers["ETag"]
        words = client.Edit(caption="a caption", tags=client.EditTags(add=[tag]))
        edited = api.edit_upload(upload_id, words, if_match=version)
        assert edited.caption == "a caption"
        try:
            api.edit_upload(upload_id, words, if_match=version)
        except ApiException as error:
            assert error.status == 412, error
        else:
            raise AssertionError("an edit with a stale version was accepted")
        assert bytes(bytes_of.get_original(upload_id)) == content
        ids.insert(0, upload_id)
    first = api.list_uploads(tag=[tag], limit=2)
    assert [one.id for one in first.data] == ids[:2]
    second = api.list_uploads(tag=[tag], limit=2, cursor=first.next_cursor)
    assert [one.id for one in second.data] == ids[2:]
    api.remove_upload(ids[0])
    assert [one.id for one in api.list_uploads(tag=[tag]).data] == ids[1:]
    api.restore_upload(ids[0])
    assert [one.id for one in api.list_uploads(tag=[tag]).data] == ids
    print("walked")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
