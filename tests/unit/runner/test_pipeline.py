from __future__ import annotations

import io
import logging
import re
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from support.edge_case_images import encoded, png_claiming, scene
from support.fakes import FakeNetwork, FakeStore
from support.work_items import CUTOUT, JPEG, LIMITS, MASK, numbered, source, store_of, work_item
from worker.contract.errors import AccessDenied, BrokerUnavailable, StoreUnavailable
from worker.contract.messages import OutcomeKind, OutputKind
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.runner import pipeline as module
from worker.runner.pipeline import FAILED_CODES, Pipeline, WorkItem


@pytest.fixture
def pipeline_of():
    """Return a factory of pipelines; they are closed at the end of the test."""
    made = []

    def make(store, network=None, *, in_flight=1):
        made.append(Pipeline(store, network or FakeNetwork(), "sha-of-model", LIMITS, in_flight=in_flight))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


def run(pipeline, work_items, **options):
    """Return the outcomes by index, after checking that they are the recorded ones."""
    recorded = []
    outcomes = pipeline.run(work_items, record=recorded.append, **options)
    assert recorded == outcomes
    return {outcome.index: outcome for outcome in outcomes}


def test_an_image_becomes_its_outputs(pipeline_of):
    store = store_of(a=JPEG)

    outcome = run(
        pipeline_of(store), [work_item(7, "a.jpg", (MASK, CUTOUT))], metadata={"maskmill-options": "sha-of-options"}
    )[7]

    assert (outcome.kind, outcome.key, outcome.code) == (OutcomeKind.OK, "a.jpg", "")
    assert outcome.outputs == ("mask/a.jpg.png", "cutout/a.jpg.png")
    assert outcome.seconds > 0
    for url, mode in (("s3://out/mask/a.jpg.png", "L"), ("s3://out/cutout/a.jpg.png", "RGBA")):
        picture = Image.open(io.BytesIO(store.objects[url]))
        assert (picture.mode, picture.size) == (mode, scene().size)
        assert store.content_types[url] == "image/png"
        assert store.metadata[url] == {
            "maskmill-source-etag": "etag-of-a.jpg",
            "maskmill-source-size": str(len(JPEG)),
            "maskmill-model": "sha-of-model",
            "maskmill-options": "sha-of-options",
        }


@pytest.mark.parametrize(("kept", "given_back"), [(1 << 30, 0), (1000, 2)])
def test_memory_beyond_what_a_process_keeps_is_given_back_after_each_picture(
    pipeline_of, monkeypatch, kept, given_back
):
    calls = []
    monkeypatch.setattr(module, "KEPT_BYTES", kept)
    monkeypatch.setattr(module, "give_back_memory", lambda: calls.append(1))

    run(pipeline_of(store_of(a=JPEG, b=JPEG)), [work_item(0, "a.jpg"), work_item(1, "b.jpg")])

    assert len(calls) == given_back


def test_the_network_decides_the_mask(pipeline_of):
    store = store_of(a=JPEG)

    run(pipeline_of(store), [work_item(0, "a.jpg")])

    mask = Image.open(io.BytesIO(store.objects["s3://out/mask/a.jpg.png"]))
    width, height = mask.size
    assert mask.getpixel((width // 2, height // 2)) == 255
    assert mask.getpixel((2, 2)) == 0


def test_only_requested_outputs_are_written(pipeline_of):
    store = store_of(a=JPEG)

    run(pipeline_of(store), [work_item(0, "a.jpg", (CUTOUT,))])

    assert set(store.metadata) == {"s3://out/cutout/a.jpg.png"}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(None, "missing", id="missing"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"no picture at all", "undecodable", id="text"),
        pytest.param(JPEG[: len(JPEG) // 2], "undecodable", id="truncated"),
        pytest.param(bytes((1 << 20) + 1), "too_large", id="too many bytes"),
        pytest.param(png_claiming(5000, 5000), "too_large", id="too many pixels"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format", id="svg"),
    ],
)
def test_a_bad_image_affects_no_other_image(pipeline_of, data, code):
    store = store_of(good=JPEG, last=JPEG) if data is None else store_of(good=JPEG, bad=data, last=JPEG)

    found = run(pipeline_of(store), [work_item(0, "good.jpg"), work_item(1, "bad.jpg"), work_item(2, "last.jpg")])

    assert [found[index].kind.value for index in range(3)] == ["ok", "failed", "ok"]
    assert found[1].code == code
    assert found[1].message
    assert found[1].outputs == ()
    assert "s3://out/mask/bad.jpg.png" not in store.objects


def test_a_refused_destination_is_final_for_the_image(pipeline_of):
    store = store_of(a=JPEG, b=JPEG)
    store.errors["s3://out/mask/a.jpg.png"] = AccessDenied("s3://out/: refused")

    found = run(pipeline_of(store), [work_item(0, "a.jpg"), work_item(1, "b.jpg")])

    assert (found[0].kind, found[0].code) == (OutcomeKind.FAILED, "access_denied")
    assert found[1].kind is OutcomeKind.OK


@pytest.mark.parametrize(
    ("error", "code", "event"),
    [
        (ZeroDivisionError("secret detail"), "internal_error", "internal_error"),
        (MemoryError(), "out_of_memory", "out_of_memory"),
    ],
)
def test_a_defect_of_ours_is_logged_and_costs_one_image(pipeline_of, caplog, error, code, event):
    store = store_of(a=JPEG, b=JPEG)
    store.errors[source("a.jpg")] = error

    with caplog.at_level(logging.ERROR, "worker.runner.pipeline"):
        found = run(pipeline_of(store), [work_item(0, "a.jpg"), work_item(1, "b.jpg")])

    assert (found[0].kind, found[0].code) == (OutcomeKind.FAILED, code)
    assert "secret detail" not in found[0].message
    assert found[1].kind is OutcomeKind.OK
    [entry] = caplog.records
    assert (entry.event, entry.fields["source"]) == (event, "s3://in/a.jpg")
    assert entry.exc_info


def test_a_store_that_is_down_ends_the_chunk(pipeline_of):
    store = numbered(6)
    store.errors[source("2.jpg")] = StoreUnavailable("down")
    recorded = []

    with pytest.raises(StoreUnavailable, match="down"):
        pipeline_of(store).run([work_item(index) for index in range(6)], record=recorded.append)

    assert [outcome.index for outcome in recorded] == [0, 1]
    assert store.got == [source(f"{index}.jpg") for index in range(3)]


def test_images_in_flight_are_recorded_before_the_error_is_raised(pipeline_of):
    store = numbered(8)
    store.errors[source("0.jpg")] = StoreUnavailable("down")
    together, raised = threading.Barrier(3), threading.Event()

    def hold(url):
        if url in {source(f"{index}.jpg") for index in range(3)}:
            together.wait(10)  # three images are in flight ...
        if url == source("0.jpg"):
            raised.set()
        else:
            raised.wait(10)  # ... when the first finds the store gone

    store.before_get = hold
    recorded = []

    with pytest.raises(StoreUnavailable):
        pipeline_of(store, in_flight=3).run([work_item(index) for index in range(8)], record=recorded.append)

    assert {outcome.index for outcome in recorded} >= {1, 2}
    assert all(outcome.kind is OutcomeKind.OK for outcome in recorded)
    assert len(store.got) < 8


def test_the_store_may_also_be_down_for_outputs(pipeline_of):
    store = numbered(1)
    store.errors["s3://out/mask/0.jpg.png"] = StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        run(pipeline_of(store), [work_item(0)])


def test_stopping_lets_the_image_in_flight_finish_and_starts_no_other(pipeline_of):
    store = numbered(5)
    stopping = threading.Event()
    store.before_get = lambda url: stopping.set() if url == source("1.jpg") else None

    found = run(pipeline_of(store), [work_item(index) for index in range(5)], stop=stopping.is_set)

    assert sorted(found) == [0, 1]
    assert all(outcome.kind is OutcomeKind.OK for outcome in found.values())
    assert store.got == [source("0.jpg"), source("1.jpg")]


def test_recording_happens_in_the_calling_thread(pipeline_of):
    threads = set()

    pipeline_of(numbered(6), in_flight=3).run(
        [work_item(index) for index in range(6)], record=lambda outcome: threads.add(threading.get_ident())
    )

    assert threads == {threading.get_ident()}


def test_outcomes_are_recorded_as_they_come(pipeline_of):
    store = numbered(2)
    first_recorded = threading.Event()
    store.before_get = lambda url: None if url == source("0.jpg") else waited.append(first_recorded.wait(10))
    waited: list[bool] = []

    pipeline_of(store).run([work_item(0), work_item(1)], record=lambda outcome: first_recorded.set())

    assert waited == [True]


def test_poll_is_called_while_an_image_runs(pipeline_of):
    store, polled = numbered(1), threading.Event()
    store.before_get = lambda url: waited.append(polled.wait(10))
    waited: list[bool] = []
    calls: list[None] = []

    def poll():
        calls.append(None)
        if len(calls) == 3:
            polled.set()
        return 0.01

    run(pipeline_of(store), [work_item(0)], poll=poll)

    assert waited == [True]


@pytest.mark.parametrize(("job", "calls"), [("job", 1), ("another", 2)])
def test_only_outputs_of_the_same_job_are_kept_in_a_second_delivery(pipeline_of, job, calls):
    """With `--force`, what another job has made is done again."""
    network = FakeNetwork()
    pipeline, facts = pipeline_of(store_of(a=JPEG), network), {"maskmill-options": "digest"}
    pipeline.run([work_item(0, "a.jpg")], record=lambda outcome: None, metadata=facts | {"maskmill-job": job})

    found = run(pipeline, [work_item(0, "a.jpg")], metadata=facts | {"maskmill-job": "job"}, skip_own=True)

    assert (found[0].kind, network.calls) == (OutcomeKind.OK, calls)


def test_a_worker_that_may_not_read_outputs_does_the_image_again_in_a_second_delivery(pipeline_of):
    store = store_of(a=JPEG)
    store.head_errors["s3://out/mask/a.jpg.png"] = AccessDenied("may only write")
    pipeline = pipeline_of(store)

    again = run(pipeline, [work_item(0, "a.jpg")], skip_own=True)
    asked_for = run(pipeline, [work_item(0, "a.jpg")], skip_existing=True)

    assert again[0].kind is OutcomeKind.OK
    assert asked_for[0].code == AccessDenied.code


def test_pictures_in_memory_are_bounded(pipeline_of):
    network = FakeNetwork(seconds=0.02)

    found = run(pipeline_of(numbered(12), network, in_flight=3), [work_item(index) for index in range(12)])

    assert len(found) == network.calls == 12
    assert network.peak == 3


def test_a_ledger_that_is_gone_ends_the_chunk(pipeline_of):
    store = numbered(6)
    store.before_get = lambda url: time.sleep(0.02)

    def record(outcome):
        raise BrokerUnavailable("gone")

    with pytest.raises(BrokerUnavailable):
        pipeline_of(store).run([work_item(index) for index in range(6)], record=record)
    started = len(store.got)
    time.sleep(0.3)

    assert len(store.got) == started < 6


def test_a_pipeline_runs_one_chunk_after_another(pipeline_of):
    store = numbered(2)
    store.errors[source("0.jpg")] = StoreUnavailable("down")
    pipeline = pipeline_of(store)
    with pytest.raises(StoreUnavailable):
        run(pipeline, [work_item(0), work_item(1)])
    store.errors.clear()

    assert sorted(run(pipeline, [work_item(0), work_item(1)])) == [0, 1]


def test_an_empty_chunk_is_no_work(pipeline_of):
    assert run(pipeline_of(FakeStore()), []) == {}


def item_with(options: OutputOptions, key: str = "a.jpg") -> WorkItem:
    keys = {kind: options.output_key(key, kind) for kind in options.outputs}
    return WorkItem(
        index=0,
        key=key,
        source=S3Url("in", key),
        outputs={kind: S3Url("out", output) for kind, output in keys.items()},
        output_keys=tuple(keys.values()),
        options=options,
    )


def test_options_reach_the_outputs(pipeline_of):
    store = store_of(a=JPEG)
    options = OutputOptions(
        outputs=(MASK, CUTOUT, OutputKind.COMPOSITE), format="webp", mask_format="png", crop=True, max_side=40
    )

    run(pipeline_of(store), [item_with(options)])

    pictures = {url: Image.open(io.BytesIO(data)) for url, data in store.objects.items() if url.startswith("s3://out")}
    assert {url: (picture.format, picture.mode) for url, picture in pictures.items()} == {
        "s3://out/mask/a.png": ("PNG", "L"),
        "s3://out/cutout/a.webp": ("WEBP", "RGBA"),
        "s3://out/composite/a.webp": ("WEBP", "RGB"),
    }
    assert {max(picture.size) for picture in pictures.values()} == {40}
    assert store.content_types == {url: f"image/{p.format.lower()}" for url, p in pictures.items()}


def test_an_outcome_describes_the_mask(pipeline_of):
    outcome = run(pipeline_of(store_of(a=JPEG)), [work_item(0, "a.jpg")])[0]

    assert outcome.quality.coverage == pytest.approx(0.25)
    assert outcome.quality.flags == ()


def test_an_outcome_carries_the_notes_of_the_decoder(pipeline_of):
    store = store_of(a=encoded(scene().convert("CMYK"), "JPEG"), b=JPEG)

    outcomes = run(pipeline_of(store), [work_item(0, "a.jpg"), work_item(1, "b.jpg")])

    assert [outcomes[i].notes for i in (0, 1)] == [("CMYK without an ICC profile: plain conversion",), ()]


def test_a_failed_image_has_no_quality(pipeline_of):
    assert run(pipeline_of(store_of()), [work_item(0, "a.jpg")])[0].quality is None


BACKGROUND = "s3://art/studio.png"
IN_FRONT = OutputOptions(
    outputs=(OutputKind.COMPOSITE,), background=BACKGROUND, background_etag="etag-of-studio.png", format="png"
)


def test_a_background_is_fetched_once_for_a_job(pipeline_of):
    store = numbered(5)
    store.objects[BACKGROUND] = encoded(Image.new("RGB", (30, 30), (0, 80, 160)), "PNG")

    found = run(pipeline_of(store, in_flight=3), [item_with(IN_FRONT, f"{index}.jpg") for index in range(5)])

    assert len(found) == 1 and found[0].kind is OutcomeKind.OK  # all have index 0
    assert store.got.count(BACKGROUND) == 1
    image = Image.open(io.BytesIO(store.objects["s3://out/3.png"]))
    assert image.getpixel((1, 1)) == (0, 80, 160)
    assert image.size == scene().size


def test_another_job_has_another_background(pipeline_of):
    store = store_of(a=JPEG)
    pipeline = pipeline_of(store)
    for name, colour in (("one", (200, 0, 0)), ("two", (0, 200, 0))):
        store.objects[f"s3://art/{name}.png"] = encoded(Image.new("RGB", (3, 3), colour), "PNG")
        options = OutputOptions(outputs=(OutputKind.COMPOSITE,), background=f"s3://art/{name}.png")
        run(pipeline, [item_with(options)])
        assert Image.open(io.BytesIO(store.objects["s3://out/a.png"])).getpixel((1, 1)) == colour


@pytest.mark.parametrize(
    ("content", "etag", "reason"),
    [
        (None, "", "does not exist"),
        (b"no picture", "", "not a picture"),
        (encoded(scene(), "PNG"), "another", "was replaced since the job was submitted"),
    ],
)
def test_a_background_that_is_not_usable_costs_the_image(pipeline_of, content, etag, reason):
    store = store_of(a=JPEG)
    if content is not None:
        store.objects[BACKGROUND] = content

    outcome = run(pipeline_of(store), [item_with(IN_FRONT.model_copy(update={"background_etag": etag}))])[0]

    assert (outcome.kind, outcome.code) == (OutcomeKind.FAILED, "background")
    assert BACKGROUND in outcome.message and reason in outcome.message
    assert not [url for url in store.objects if url.startswith("s3://out")]


def test_a_background_that_cannot_be_reached_is_retried(pipeline_of):
    store = store_of(a=JPEG)
    store.errors[BACKGROUND] = StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        run(pipeline_of(store), [item_with(IN_FRONT)])


@pytest.mark.parametrize("key", ["", "a" * 1025, "ü" * 512 + ".jpg"])
def test_a_key_that_s3_does_not_allow_fails_alone(pipeline_of, key):
    """It comes from a list of another program: its neighbours in the chunk must not wait for it."""
    store = store_of(a=JPEG)
    work = WorkItem(0, key, S3Url("in", key), {MASK: S3Url("out", f"{key}.png")}, (f"{key}.png",))

    outcomes = run(pipeline_of(store), [work, work_item(1, "a.jpg")])

    assert (outcomes[0].kind, outcomes[0].code) == (OutcomeKind.FAILED, "invalid_key")
    assert outcomes[1].kind is OutcomeKind.OK


def test_the_readme_lists_the_codes_of_failed_images():
    readme = Path(__file__).parents[3] / "producer/README.md"
    table = readme.read_text().split("Its code:")[1].split("\n\nChunk states")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    listed = {code for cell in first_cells for code in re.findall(r"`(\w+)`", cell)}

    assert listed == FAILED_CODES | {"worker_lost"}
