"""A whole job on each of several S3 servers: every image is done, and a second run finds all of them up to date."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from support import commands
from support.edge_case_images import encoded, scene
from support.installation import Installation, load_settings, new_installation
from support.s3_servers import NAMES, s3_server, variables
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone

KEYS = ["a.jpg", "d/b c.jpg", "d/ü#1.jpg", "d/e/100%.jpg"]


@pytest.fixture(scope="module", params=NAMES)
def site(
    request: pytest.FixtureRequest,
    standalone: Standalone,
    cache: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """An installation that stores in one of the servers, with pictures under `in/` and a worker."""
    folder = tmp_path_factory.mktemp("server")
    with s3_server(request.param, standalone, folder) as s3, ObjectStore(s3) as store:
        settings = new_installation(standalone).environment | cache | variables(s3)
        bucket = f"t{secrets.token_hex(4)}"
        store.ensure_bucket(bucket)
        for key in KEYS:
            store.put(S3Url(bucket, f"in/{key}"), encoded(scene(), "JPEG"), content_type="image/jpeg")
        with commands.workers(settings, folder / "worker.log"):
            yield Installation(settings, load_settings(settings), bucket)


def submit(site: Installation) -> dict:
    """Submit the pictures, wait, and return the last line about the job."""
    places = (f"s3://{site.bucket}/in/", f"s3://{site.bucket}/out/")
    done = commands.run("producer", "submit", *places, "--wait", "--json", "--timeout", "80", settings=site.environment)
    assert done.code == 0, done.err
    return done.lines[-1]


def test_a_job_is_done_once_and_then_up_to_date(site: Installation, tmp_path: Path):
    first = submit(site)
    with ObjectStore(site.settings.s3) as store:
        made = {item.key: item.etag for item in store.list(S3Url(site.bucket, "out/")) if item.key.endswith(".png")}
        body, _ = store.get(S3Url(site.bucket, "out/d/ü#1.png"), max_bytes=1 << 20)
    again = submit(site)
    job = again["job"]
    fetched = commands.run("producer", "download", job, str(tmp_path / "out"), settings=site.environment)

    assert (first["status"], first["ok"], first["total"]) == ("finished", len(KEYS), len(KEYS))
    assert set(made) == {f"{key.removesuffix('.jpg')}.png" for key in KEYS}
    mask = Image.open(io.BytesIO(body))
    assert (mask.mode, mask.size) == ("L", scene().size)
    assert mask.getpixel((80, 60)) > 200 and mask.getpixel((2, 2)) < 50
    assert (again["status"], again["skipped"], again["total"]) == ("finished", len(KEYS), len(KEYS))
    assert fetched.code == 0, fetched.err
    here = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert here == set(made)
