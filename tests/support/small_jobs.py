"""Jobs of small pictures, submitted from the process of the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO

from PIL import Image

from producer.submit import Submitter
from support.installation import Installation
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.queue.celery_app import make_celery
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore


def picture(side: int = 64) -> bytes:
    """Return a square picture of noise as PNG, `side` pixels wide."""
    data = BytesIO()
    Image.effect_noise((side, side), 40).convert("RGB").save(data, "PNG")
    return data.getvalue()


def upload(installation: Installation, count: int, folder: str) -> None:
    """Put `count` small pictures into a folder of the bucket."""
    data = picture()
    with ObjectStore(installation.settings.s3) as store:
        for index in range(count):
            store.put(S3Url(installation.bucket, f"{folder}/{index:05d}.png"), data, content_type="image/png")


@contextmanager
def connected_submitter(installation: Installation, chunk: int) -> Iterator[Submitter]:
    """Yield a submitter of chunks of `chunk` images, with its own connections."""
    with (
        ObjectStore(installation.settings.s3) as store,
        Ledger(installation.settings.redis) as ledger,
        make_celery(installation.settings, client_name="maskmill-submit") as celery,
    ):
        yield Submitter(store, ledger, celery, chunk)


def submit(
    installation: Installation,
    count: int,
    *,
    chunk: int,
    special: Mapping[int, tuple[str, bytes | None]] | None = None,
    policy: JobPolicy | None = None,
    folder: str = "in",
) -> str:
    """Submit `count` small pictures.

    Args:
        installation: receives the pictures and the job.
        count: number of images.
        chunk: images in a chunk.
        special: index -> a word for its key (`poison-segfault`) and its bytes; None for the usual picture.
        policy: of the job.
        folder: of the inputs; outputs go under `FOLDER-out/`.

    Returns:
        The job's id.
    """
    usual = picture()
    with connected_submitter(installation, chunk) as submitter:
        for index in range(count):
            word, data = (special or {}).get(index, ("image", None))
            key = f"{folder}/{index:05d}-{word}.png"
            submitter.store.put(S3Url(installation.bucket, key), data or usual, content_type="image/png")
        source, dest = (f"s3://{installation.bucket}/{folder}{end}/" for end in ("", "-out"))
        return submitter.submit(source, dest, OutputOptions(), policy=policy).view.job
