"""`producer report` on the command line, and its page in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from support import commands
from support.browser import CHROMIUM, Browser, browser
from support.installation import Installation
from support.photographs import photograph
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

HOSTILE = "<script>document.title='owned'<\\script><img src=x>&\"'.png"


@pytest.fixture(scope="module")
def job(running_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A job of two images with a subject, one without and with a hostile name, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    photograph("coffee.png").save(folder / "cup.jpg")
    photograph("astronaut.png").save(folder / "astronaut.jpg")
    Image.new("RGB", (64, 64), (90, 90, 90)).save(folder / HOSTILE)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    dest = f"s3://{running_installation.bucket}/{folder.name}/"
    done = commands.run(
        "producer",
        *("submit", str(folder), dest, "--wait", "--json", "--timeout", "60"),
        settings=running_installation.environment,
    )
    assert done.code == 3, done.err
    return {"job": done.lines[0]["job"], "dest": dest}


@pytest.fixture(scope="module")
def page(running_installation: Installation, job: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    done = commands.run(
        "producer", "report", job["job"], "--output", str(file), "--json", settings=running_installation.environment
    )
    assert done.code == 0, done.err
    where = f"{job['dest']}_maskmill/{job['job']}/report.html"
    assert done.lines == [{"job": job["job"], "report": where, "file": str(file), "bytes": file.stat().st_size}]
    return file


def test_the_page_is_in_the_jobs_folder_too(running_installation, page, job):
    installation = S3Url.parse(f"{job['dest']}_maskmill/{job['job']}/report.html")
    with ObjectStore(running_installation.settings.s3) as store:
        body, _ = store.get(installation, max_bytes=10**8)

    assert body == page.read_bytes()


def test_it_can_be_made_without_redis_knowing_the_job_and_without_writing_to_s3(running_installation, job, tmp_path):
    elsewhere = running_installation.environment | {"MASKMILL_REDIS__PREFIX": "another:"}
    arguments = ("--dest", job["dest"], "--no-upload", "--samples", "1")

    done = commands.run(
        "producer", "report", job["job"], *arguments, "--output", str(tmp_path / "r.html"), settings=elsewhere
    )
    neither = commands.run("producer", "report", job["job"], *arguments, settings=elsewhere)

    assert done.code == 0, done.err
    assert (tmp_path / "r.html").read_text("utf-8").count("<figure") == 1
    assert neither.code == 1 and "--output" in neither.err


@pytest.fixture(scope="module")
def opened(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with browser(tmp_path_factory.mktemp("browser")) as found:
        found.size(1200, 900)
        found.open(page)
        yield found


def visible(opened: Browser) -> list[str]:
    cards = "[...document.querySelectorAll('.card')].filter(c => !c.hidden).map(c => c.dataset.key)"
    return json.loads(opened.value(f"JSON.stringify({cards})"))


def press(opened: Browser, element: str, key: str, code: int) -> None:
    opened.value(f"document.querySelector({json.dumps(element)}).focus()")
    opened.press(key, code)


def test_nothing_is_loaded_and_nothing_foreign_runs(opened, page):
    assert opened.requests == [page.as_uri()]
    assert opened.complaints == []
    assert opened.value("document.title").endswith("maskmill report")
    assert opened.value("document.scripts.length") == 1
    every = "[...document.images].map(i => { i.loading = 'eager'; return i.decode().then(() => i.naturalWidth) })"
    widths = json.loads(opened.value(f"Promise.all({every}).then(JSON.stringify)"))
    assert len(widths) == 6 and all(widths)


def test_masks_that_need_review_come_first_and_the_keyboard_filters_them(opened):
    assert visible(opened)[0] == HOSTILE.lower()
    assert len(visible(opened)) == 3

    press(opened, ".filter[data-flag='review']", "Enter", 13)
    assert visible(opened) == [HOSTILE.lower()]
    assert opened.value("document.querySelector('[aria-pressed=true]').dataset.flag") == "review"
    press(opened, ".filter[data-flag='']", " ", 32)
    assert len(visible(opened)) == 3


def test_before_and_after_follow_the_arrow_keys(opened):
    at = "document.querySelector('.pair').style.getPropertyValue('--at')"
    for _ in range(3):
        press(opened, ".pair input", "ArrowRight", 39)

    assert opened.value(at) == "53%"
    clip = opened.value("getComputedStyle(document.querySelector('.after')).clipPath")
    assert clip == "inset(0px 0px 0px 53%)"


def test_a_phone_shows_reasons_chart_and_stages_without_scrolling_sideways(opened):
    opened.size(375, 800)
    wide = "[...document.querySelectorAll('.scroll')].map(one => [one.scrollWidth, one.clientWidth])"
    parts = json.loads(opened.value(f"JSON.stringify({wide})"))
    box = "(element => (({left, right, height}) => ({left, right, height}))(element.getBoundingClientRect()))"
    reason = json.loads(opened.value(f"JSON.stringify({box}(document.querySelector('details[open] .why')))"))
    last = json.loads(opened.value(f"JSON.stringify({box}(document.querySelector('.stages tbody td:last-child')))"))
    opened.size(1200, 900)

    assert len(parts) >= 2 and all(content <= room for content, room in parts), parts
    assert reason["left"] >= 0 and reason["right"] <= 375 and reason["height"] > 0
    assert last["left"] >= 0 and last["right"] <= 375


def test_light_dark_and_narrow(opened):
    colour = "getComputedStyle(document.body).backgroundColor"
    opened.dark("dark")
    dark = opened.value(colour)
    opened.dark("light")
    light = opened.value(colour)
    press(opened, "#theme", "Enter", 13)
    chosen = opened.value(colour)
    opened.size(360, 700)
    width = opened.value("document.documentElement.scrollWidth")
    opened.size(1200, 900)

    assert dark != light and chosen == dark
    assert width == 360, "the page must not overflow on a phone"
