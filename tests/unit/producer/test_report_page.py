"""The report page shows every fact, and nothing untrusted becomes markup or code."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import ExifTags, Image

from producer.report.render import duration, percent, render, seconds
from producer.report.survey import survey
from producer.report.thumbnails import SIDE, load_pairs
from support.fakes import FakeStore
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions, MaskQuality, Outcome, OutcomeKind
from worker.contract.settings import JobSettings, LimitSettings

HOSTILE = "a/<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}.jpg"
SOFT = MaskQuality(coverage=0.4, soft=0.9, empty=False, full=False, touches_border=True)


def view(**fields) -> JobView:
    output_options = {"outputs": fields.pop("outputs", ("mask",)), "crop": fields.pop("crop", False)}
    options = JobOptions(source="s3://in/", dest="s3://out/", **output_options)
    known = {"status": JobStatus.FINISHED, "total": 2, "ok": 1, "failed": 1, "created_at": 1e9, "started_at": 1e9}
    return JobView(job="job", options=options, **known | {"completed_at": 1e9 + 5, "finished_at": 1e9 + 5} | fields)


def good(key: str = HOSTILE) -> Outcome:
    return Outcome(index=0, key=key, kind=OutcomeKind.OK, seconds=0.5, stages={"infer": 0.5}, quality=SOFT, at=1e9)


def bad(message: str = "<b>why</b>") -> Outcome:
    return Outcome(index=1, key=HOSTILE, kind=OutcomeKind.FAILED, code="undecodable", message=message, at=1e9 + 3)


def picture(colour: object, size=(640, 320), form="PNG", mode="RGB", **how) -> bytes:
    body = io.BytesIO()
    Image.new(mode, size, colour).save(body, form, **how)
    return body.getvalue()


def store(job: JobView, key: str = HOSTILE) -> FakeStore:
    return FakeStore(
        {
            f"s3://in/{key}": picture((200, 10, 10)),
            f"s3://out/{job.options.output_key(key, job.options.outputs[0])}": picture(128, mode="L"),
        }
    )


def page(job: JobView, outcomes: list[Outcome], objects: FakeStore, **price: object) -> str:
    found = survey(outcomes, samples=5, seed="job")
    pairs = load_pairs(objects, job, found.samples, LimitSettings())
    return render(job, found, pairs, now=1e9 + 60, jobs=JobSettings(**price))


class Elements(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_keys_and_messages_are_shown_as_text():
    job = view()
    elements = Elements(page(job, [good(), bad()], store(job)))

    assert len(elements.of("script")) == 1
    assert not elements.of("b")
    assert all(attributes["src"].startswith("data:image/webp;base64,") for attributes in elements.of("img"))
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert elements.text.count(HOSTILE) == 3  # in its card, its failure and the slowest images
    assert "<b>why</b>" in elements.text


def test_the_policy_allows_only_the_pages_own_style_and_script():
    job = view()
    text = page(job, [good(), bad()], store(job))

    policy = next(a["content"] for a in Elements(text).of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        [body] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not Elements(text).of("link")
    assert not re.search(r"""(src|href)=["']?(https?:|//)|url\(|@import""", text)
    assert not re.search(r"""\sstyle=""", text)  # the policy would refuse it


def test_the_page_has_numbers_and_flags():
    job = view(core_seconds=7.0, bytes=2_000_000)
    elements = Elements(page(job, [good(), bad()], store(job)))

    card = next(a for a in elements.of("figure"))
    assert card["data-flags"].split() == ["soft", "border", "review"]
    for words in ("2.0 MB", "50 %", "undecodable", "7 core-seconds", "need review", "Throughput over time", "finished"):
        assert words in elements.text
    assert [a["data-flag"] for a in elements.of("button") if "data-flag" in a] == ["", "review", "soft", "border"]
    assert len(elements.of("input")) == 2 and elements.of("input")[1]["aria-label"].endswith(HOSTILE)


def test_a_card_has_the_notes_about_its_file():
    job = view()
    noted = good().model_copy(update={"notes": ("an ICC profile that is cut off was dropped",)})

    assert "an ICC profile that is cut off was dropped" in Elements(page(job, [noted], store(job))).text


def test_a_running_job_and_a_job_without_outputs():
    running = view(status=JobStatus.RUNNING, total=1_000_000, finished_at=None, completed_at=None)
    assert "had not ended when this report was written: 2 of 1,000,000" in page(
        running, [good(), bad()], store(running)
    )
    nothing = view(ok=0, failed=0, total=3, cancelled=3, status=JobStatus.CANCELLED, reason="enough <i>")
    text = page(nothing, [], FakeStore())
    assert "No pictures" in text and "enough &lt;i&gt;" in text and "Failures" not in text


def pictures_of(job: JobView, source: bytes, output: bytes, **limits):
    kind = job.options.outputs[-1]
    objects = FakeStore({"s3://in/a.jpg": source, f"s3://out/{job.options.output_key('a.jpg', kind)}": output})
    [found] = load_pairs(objects, job, [good("a.jpg")], LimitSettings(**limits))
    return found


def opened(picture) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture.url.partition(",")[2])))


def test_a_mask_is_shown_as_a_cutout():
    found = pictures_of(view(), picture((200, 10, 10), (960, 480)), picture(0, (960, 480), mode="L"))

    before, after = opened(found.before), opened(found.after)
    assert before.size == after.size == (SIDE, SIDE // 2)
    assert (found.before.width, found.aligned) == (320, True)
    assert after.mode == "RGBA" and after.getchannel("A").getextrema() == (0, 0)
    assert before.mode == "RGB"


def test_a_photograph_is_turned_upright_like_its_output():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    found = pictures_of(view(), picture((9, 9, 9), (900, 600), "JPEG", exif=exif), picture(255, (600, 900), mode="L"))

    assert opened(found.before).size == (SIDE * 2 // 3, SIDE)
    assert found.aligned


def test_a_cutout_is_shown_unchanged_and_beside_the_photograph_if_cropped():
    cutout = picture((1, 200, 1, 128), (100, 50), mode="RGBA")
    whole = pictures_of(view(outputs=("mask", "cutout")), picture((9, 9, 9), (200, 100)), cutout)
    cropped = pictures_of(view(outputs=("mask", "cutout"), crop=True), picture((9, 9, 9), (200, 100)), cutout)

    assert (whole.aligned, cropped.aligned) == (True, False)
    assert opened(whole.after).size == (200, 100)
    assert opened(cropped.after).getpixel((5, 5))[3] == 128


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"nonsense", "cannot be shown"),
        (picture((1, 2, 3), (2000, 1000))[:3000], "cannot be shown"),
        (picture((1, 2, 3), (2000, 1001)), "pixels are more than the limit"),
        (b"x" * 1_100_000, "1100000 bytes"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_explained(source, message):
    job = view()
    found = pictures_of(job, source, picture(0, mode="L"), max_megapixels=2, max_object_mib=1)
    assert found.before is None and message in found.problem


def test_a_deleted_output_is_reported():
    [found] = load_pairs(FakeStore({"s3://in/a.jpg": picture((1, 2, 3))}), view(), [good("a.jpg")], LimitSettings())
    assert found.problem == "s3://out/a.png does not exist"


@pytest.mark.parametrize(
    ("mode", "form", "how"), [("I;16", "PNG", {}), ("P", "GIF", {}), ("LA", "PNG", {}), ("CMYK", "JPEG", {})]
)
def test_unusual_pixel_modes_are_shown(mode, form, how):
    colour = {"I;16": 40_000, "P": 3, "LA": (200, 255), "CMYK": (10, 20, 30, 40)}[mode]
    found = pictures_of(view(), picture(colour, (60, 40), form, mode), picture(255, (60, 40), mode="L"))

    assert not found.problem
    if mode == "I;16":
        assert opened(found.before).getpixel((5, 5))[0] == pytest.approx(156, abs=3)


def test_formatted_numbers():
    shares = ["0 %", "< 0.01 %", "50 %", "> 99.99 %", "100 %"]
    assert [percent(share) for share in (0, 0.00004, 0.5, 0.99999999, 1)] == shares
    assert [seconds(value) for value in (0.0123, 1.234, 75)] == ["12.3 ms", "1.23 s", "75 s"]
    assert [duration(v) for v in (2.3, 59, 60, 185, 7800)] == ["2.3 s", "59 s", "1 min", "3 min 5 s", "2 h 10 min"]


def test_costs_have_their_currency():
    job = view(core_seconds=3600.0, ok=1)

    text = Elements(page(job, [good()], store(job), price_per_core_hour=0.05, currency="EUR")).text

    assert "50 EUR" in text and "0.05 EUR in total, at 0.05 per core-hour" in text
    assert "per core-hour" not in Elements(page(job, [good()], store(job))).text
