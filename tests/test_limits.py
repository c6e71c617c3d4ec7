"""What the service says that it accepts, and what it does with more than that."""

from clustr.domain.access import Scope


def test_a_program_can_read_what_is_accepted(app_with):
    app = app_with(
        ALLOWED_EXTENSIONS="tif,jpg",
        MAX_UPLOAD_SIZE="1000",
        MAX_REQUEST_SIZE="5000",
        MAX_FILES_PER_REQUEST="3",
        MAX_IMAGE_PIXELS="200",
        RATE_LIMIT="600/min",
    )
    assert app.test_client().get("/api/limits").json == {
        "formats": [
            {"content_type": "image/jpeg", "extensions": ["jpg", "jpeg"]},
            {"content_type": "image/tiff", "extensions": ["tif", "tiff"]},
        ],
        "max_file_bytes": 1000,
        "max_request_bytes": 5000,
        "max_files_per_request": 3,
        "max_image_pixels": 200,
        "allowed": {
            "key": None,
            "scopes": sorted(Scope),
            "own_only": False,
            "rate": "600/min",
            "bytes_per_day": None,
        },
    }
