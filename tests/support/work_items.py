"""Work items of a pipeline over `fakes.FakeStore`."""

from __future__ import annotations

from support.edge_case_images import encoded, scene
from support.fakes import FakeStore
from worker.contract.messages import OutputKind
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings
from worker.runner.pipeline import WorkItem

JPEG = encoded(scene(), "JPEG", quality=90)
LIMITS = LimitSettings(max_object_mib=1, max_megapixels=10)
MASK, CUTOUT = OutputKind.MASK, OutputKind.CUTOUT


def work_item(index: int, key: str | None = None, outputs: tuple[OutputKind, ...] = (MASK,)) -> WorkItem:
    key = key or f"{index}.jpg"
    keys = {kind: f"{kind.value}/{key}.png" for kind in outputs}
    return WorkItem(
        index=index,
        key=key,
        source=S3Url("in", key),
        outputs={kind: S3Url("out", output) for kind, output in keys.items()},
        output_keys=tuple(keys.values()),
        options=OutputOptions(outputs=outputs),
    )


def source(key: str) -> str:
    return str(S3Url("in", key))


def store_of(**objects: bytes) -> FakeStore:
    return FakeStore({source(f"{name}.jpg"): data for name, data in objects.items()})


def numbered(count: int) -> FakeStore:
    return FakeStore({source(f"{index}.jpg"): JPEG for index in range(count)})
