from __future__ import annotations

import pytest

from producer.estimate import estimate
from producer.plan import make_plan
from producer.sources.filters import Filters
from producer.sources.item import Skip
from producer.sources.resolve import SourceSpec
from producer.uptodate import UpToDate
from worker.contract.errors import SourceError
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.fleet import WorkerFacts
from worker.contract.messages import JobOptions
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo

DEST = S3Url("b", "out/")


class Store:
    def __init__(self, *keys):
        self.keys = keys

    def list(self, root, *, beginning=""):
        for key in self.keys:
            yield ObjectInfo(key, 100, "e", {}, 1.0)

    def check(self, place):
        assert place == DEST


def plan_of(*keys, filters=Filters(), **more):  # noqa: B008
    return make_plan(
        SourceSpec(("s3://b/in/",), filters=filters),
        DEST,
        lambda root: JobOptions(source=str(root), dest=str(DEST)),
        Store(*keys),
        **more,
    )


def test_a_plan_counts_and_shows_examples():
    listed = []
    with plan_of("a.jpg", "d/b.png", "c.txt", on_listed=listed.append) as plan:
        assert (plan.images, plan.bytes, plan.unknown_sizes, plan.up_to_date) == (2, 200, 0, None)
        assert plan.outputs == (("a.jpg", "a.png"), ("d/b.png", "d/b.png"))
        assert plan.skipped == {Skip.NOT_AN_IMAGE: 1} and listed == [2]
        plan.check()


def test_up_to_date_images_are_counted_and_remain_in_the_job():
    class Check:
        seen = ()

        def add(self, item):
            self.seen += (item.key,)

        def result(self):
            return UpToDate(1, f"saw {self.seen}")

    with plan_of("a.jpg", "b.jpg", start_check=lambda options, root: Check()) as plan:
        assert (plan.images, plan.up_to_date, plan.up_to_date_basis) == (2, 1, "saw ('a.jpg', 'b.jpg')")


@pytest.mark.parametrize(
    ("keys", "filters", "match"),
    [
        ([], Filters(), r"no images under s3://b/in/: it is empty; check the spelling"),
        (["_maskmill/j/a.png"], Filters(), r"s3://b/in/: it is empty; .*\(files of earlier jobs do not count\)"),
        (["IMG_1.jpg"], Filters(include="img*"), "1 not matched only because upper and lower case differ"),
        (["a.txt"], Filters(), r"no images under s3://b/in/: names must end in"),
        (["a.jpg", "b.jpg"], Filters(min_size=101), "are left: 2 too small"),
    ],
)
def test_a_plan_without_images_gives_the_reasons(keys, filters, match):
    with plan_of(*keys, filters=filters) as plan, pytest.raises(SourceError, match=match):
        plan.check()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SourceSpec("s3://b/in/a.jpg"), "s3://b/in/a.jpg matches nothing, and no name under s3://b/in/ begins like it"),
        (SourceSpec("s3://b/in/a*"), r"s3://b/in/a\* matches nothing"),
    ],
)
def test_an_object_that_does_not_exist_is_named(spec, message):
    options = JobOptions(source="s3://b/in/", dest=str(DEST))
    with make_plan(spec, DEST, lambda root: options, Store()) as plan, pytest.raises(SourceError, match=message):
        plan.check()


def test_pictures_that_no_worker_reads_are_counted_once():
    with plan_of("a.jpg", "b.HEIC", "b.HEIC", "c.heif", "d.png") as plan:
        assert (plan.images, plan.unreadable, plan.skipped) == (4, 2, {Skip.DUPLICATE: 1})


def test_two_kinds_may_share_a_name_only_if_they_are_kept_apart():
    outputs = OutputOptions(outputs=("mask", "composite"), mask_format="png", format="jpeg", name="{dir}/{stem}.{ext}")
    options = JobOptions(source="s3://b/in/", dest=str(DEST), **outputs.model_dump())

    spec = SourceSpec(("s3://b/in/",))
    with make_plan(spec, DEST, lambda root: options, Store("a.jpg", "a.png", "a.jpg", "b.jpg")) as plan:
        assert (plan.images, plan.collisions, plan.skipped) == (3, 2, {Skip.DUPLICATE: 1})
        assert plan.bytes == 300
        assert "'a.jpg' and 'a.png' would both be written to" in plan.collision_examples[0]


def worker(seconds: float | None, cores: int = 4) -> WorkerFacts:
    facts = {"streams": 2, "threads": 4, "model": "m", "size": 512, "precision": "int8"}
    return WorkerFacts(name="w", cpus=tuple(range(cores)), seconds_per_image=seconds, **facts)


def job(ok: int, seconds: float, core_seconds: float = 0.0, *, status=JobStatus.FINISHED, skipped: int = 0) -> JobView:
    options = JobOptions(source="s3://a/", dest="s3://b/")
    times = {"created_at": 0.0, "started_at": 100.0, "completed_at": 100.0 + seconds}
    return JobView(job="j", status=status, options=options, ok=ok, skipped=skipped, core_seconds=core_seconds, **times)


def test_the_rate_comes_from_live_workers_and_the_cost_from_jobs():
    found = estimate(3600, [worker(0.5), worker(0.5), worker(None)], [job(100, 50.0, 200.0), job(100, 50.0, 400.0)])

    assert (found.processes, found.cores) == (3, 12)
    assert found.images_per_second == pytest.approx(6.0)
    assert found.seconds == pytest.approx(600.0)
    assert found.core_hours == pytest.approx(3600 * 3.0 / 3600)
    assert "live workers" in found.basis


def test_without_workers_the_rate_comes_from_the_last_jobs():
    others = [job(5, 1.0, status=JobStatus.CANCELLED), job(0, 1.0, skipped=50)]

    found = estimate(100, [], [*others, job(100, 50.0), job(100, 150.0)])

    assert (found.processes, found.images_per_second, found.seconds) == (0, pytest.approx(1.0), pytest.approx(100.0))
    assert found.core_hours is None and found.basis == "the last 2 finished jobs"


def test_without_a_measured_cost_live_cores_are_used():
    assert estimate(3600, [worker(1.0)], []).core_hours == pytest.approx(4.0)


def test_a_plan_without_measurements_says_so():
    found = estimate(100, [worker(None)], [])

    assert (found.seconds, found.core_hours) == (None, None) and "--sample 100" in found.basis


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("d/" + "ü" * 507 + "g.jpg", "its mask would have a key of 1,025 bytes in bucket 'b'"),
        ("a" * 1022 + ".jpg", "it would have a key of 1,029 bytes"),
    ],
)
def test_a_key_that_s3_does_not_allow_is_refused_with_the_remedy(key, what):
    with pytest.raises(SourceError, match=f"{what}.*1,024: rename it, --exclude it, or choose a shorter destination"):
        plan_of("a.jpg", key)


def test_the_longest_key_is_submitted():
    with plan_of("a" * (1024 - len("out/.jpg")) + ".jpg") as plan:
        assert plan.images == 1
