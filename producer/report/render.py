"""The page itself: everything into the template, which escapes whatever is not its own; keys are untrusted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, resources
from typing import Any

import jinja2
from markupsafe import Markup
from rich import filesize

from producer.report import charts
from producer.report.survey import Survey
from producer.report.thumbnails import Shown
from producer.watch import mean_rate
from worker.contract.job import JobView
from worker.contract.messages import FLAGS, OutcomeKind
from worker.contract.stages import Stage

_STAGE_WORDS = {
    Stage.CHECK: "is the output up to date?",
    Stage.FETCH: "from S3",
    Stage.DECODE: "bytes to pixels",
    Stage.PREPARE: "to the network's input",
    Stage.INFER: "the network",
    Stage.RENDER: "mask to output, encode",
    Stage.HOLD: "done ahead, waiting for its turn",
    Stage.STORE: "to S3",
}
_FLAG_WORDS = {
    "empty": "no subject found",
    "full": "everything is subject",
    "soft": "mostly half transparent: the network could not decide",
    "border": "the subject touches the border",
}
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True)
class _Tile:
    name: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class _Part:
    """Of the bar of all images, which is 1,000 wide."""

    name: str
    count: int
    x: float
    width: float


def render(
    view: JobView, survey: Survey, shown: Iterable[Shown], *, now: float, price_per_core_hour: float | None
) -> str:
    """The page as HTML.

    Args:
        view: the job.
        survey: of its outcomes.
        shown: its samples, those to look at first.
        now: Unix seconds.
        price_per_core_hour: for the cost, if known.
    """
    files = resources.files("producer.report") / "page"
    style, script = ((files / name).read_text("utf-8") for name in ("report.css", "report.js"))
    cards = [_card(each) for each in shown]
    return _template().render(
        view=view,
        survey=survey,
        style=Markup(style),  # noqa: S704 -- our own files, whose digests the page's policy names
        style_digest=_digest(style),
        script=Markup(script),  # noqa: S704
        script_digest=_digest(script),
        tiles=list(_tiles(view, survey, price_per_core_hour)),
        parts=list(_parts(view)),
        pictures=cards,
        picture_note=_picture_note(view, survey, len(cards)),
        filters=list(_filters(view, survey, cards)),
        failures=list(_failures(view, survey)),
        chart=charts.throughput(survey.timeline, survey.step) if len(survey.timeline) > 1 else None,
        peak=f"{max(survey.timeline, default=0) / survey.step:.3g}",
        stage_words={stage.value: words for stage, words in _STAGE_WORDS.items()},
        latency_note=_latency_note(view, survey),
        facts=list(_facts(view)),
        version=metadata.version("maskmill"),
        now=now,
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("producer.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: "?" if value is None else f"{value:,}",
        "percent": percent,
        "seconds": seconds,
        "duration": duration,
        "moment": moment,
    }
    return environment.get_template("report.html.j2")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _tiles(view: JobView, survey: Survey, price_per_core_hour: float | None) -> Iterator[_Tile]:
    good, bad, total = view.ok + view.skipped, view.failed + view.dead, view.total or 0
    yield _Tile("images", f"{total:,}", filesize.decimal(view.bytes) if view.bytes else "")
    uptodate = f", {view.skipped:,} up to date" if view.skipped else ""
    yield _Tile("succeeded", f"{good:,}", (percent(good / total) if total else "") + uptodate)
    yield _Tile("failed", f"{bad:,}", percent(bad / total) if bad and total else "", "bad" if bad else "")
    look = survey.needs_review
    note = f"of {survey.assessed:,} masks" if survey.assessed else "no new masks"
    yield _Tile("need a look", f"{look:,}", note, "look" if look else "")
    if rate := mean_rate(view):
        yield _Tile("images/s", f"{rate:.3g}", f"over {duration(view.done / rate)}")
    if view.core_seconds and view.ok:
        each = view.core_seconds / view.ok
        yield _Tile("core-s per image", f"{each:.3g}", f"{_core_time(view.core_seconds)} in all")
        if price_per_core_hour is not None:
            cost = each * 1000 / _HOUR * price_per_core_hour
            yield _Tile("cost per 1,000", f"{cost:.3g}", f"at {price_per_core_hour:g} per core-hour")


def _core_time(seconds: float) -> str:
    return f"{seconds:,.3g} core-seconds" if seconds < _HOUR else f"{seconds / _HOUR:,.3g} core-hours"


def _parts(view: JobView) -> Iterator[_Part]:
    counts = {kind.value: int(getattr(view, kind.value)) for kind in OutcomeKind}
    total = max(view.total or 0, sum(counts.values()))
    counts["left"] = total - sum(counts.values())
    x = 0.0
    for name, count in counts.items():
        if count:
            width = max(2.0, 1000 * count / total)  # one failure of a million is seen
            yield _Part(name, count, round(min(x, 1000 - width), 2), round(width, 2))
            x += width


def _card(shown: Shown) -> dict[str, Any]:
    outcome, quality = shown.outcome, shown.outcome.quality
    return {
        "shown": shown,
        "key": outcome.key,
        "quality": quality,
        "flags": quality.flags if quality else (),
        "review": bool(quality and quality.needs_review),
        "skipped": outcome.kind is OutcomeKind.SKIPPED,
        "seconds": outcome.seconds,
    }


def _picture_note(view: JobView, survey: Survey, count: int) -> str:
    if not count:
        return "There are none: no image of this job has an output yet."
    there = view.ok + view.skipped
    what = f"All {count:,} images with an output" if count >= there else f"{count:,} of {there:,} images, a sample"
    return f"{what}; those that need a look come first. Drag, or use the arrow keys, to compare before and after."


def _filters(view: JobView, survey: Survey, cards: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Buttons with how many pictures of this page they show, and how many there are in the job."""
    yield {
        **{"flag": "", "name": "All", "title": "every picture on this page"},
        **{"shown": len(cards), "whole": view.ok + view.skipped},
    }
    if survey.needs_review:
        yield {
            **{"flag": "review", "name": "Needs a look", "title": "empty, full or mostly soft"},
            **{"shown": sum(card["review"] for card in cards), "whole": survey.needs_review},
        }
    for flag in FLAGS:
        if count := survey.flags[flag]:
            shown = sum(flag in card["flags"] for card in cards)
            yield {
                **{"flag": flag, "name": flag.capitalize(), "title": _FLAG_WORDS[flag]},
                **{"shown": shown, "whole": count},
            }


def _failures(view: JobView, survey: Survey) -> Iterator[dict[str, Any]]:
    for code, count in survey.codes.most_common():
        share = count / view.total if view.total else 0.0
        yield {"code": code, "count": count, "share": share, "examples": survey.examples[code]}


def _latency_note(view: JobView, survey: Survey) -> str:
    return f"Percentiles are of a sample of {survey.timed:,} images." if survey.timed < view.ok else ""


def _facts(view: JobView) -> Iterator[tuple[str, str]]:
    options = view.options
    formats = {kind.value: options.format_of(kind).value for kind in options.outputs}
    yield "outputs", ", ".join(f"{kind} ({form})" for kind, form in formats.items())
    extra = options.model_dump(mode="json", exclude_defaults=True)
    for name in ("source", "dest", "outputs", "format", "mask_format", "background_etag"):
        extra.pop(name, None)
    if extra:
        yield "options", ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in extra.items())
    if view.models:
        yield "models", ", ".join(f"{model} ({count:,} chunks)" for model, count in view.models.items())
    yield "priority", view.policy.priority.value
    yield "submitted", moment(view.submitted_at or view.created_at)
    if view.started_at:
        yield "first image started", moment(view.started_at)
    if view.completed_at:
        yield "last outcome", moment(view.completed_at)
    if view.epoch:
        yield "run again", f"{view.epoch:,} times"
    yield "images in a message", f"{view.chunk_images:,}" if view.chunk_images else "?"


def _plain(value: object) -> str:
    return "yes" if value is True else str(value)


def percent(share: float) -> str:
    """`12 %`; small ones with two digits, and never 100 % or 0 % of what is not all or nothing."""
    value = 100 * share
    if 0 < value < 0.01:  # noqa: PLR2004
        return "< 0.01 %"
    if 99.99 < value < 100:  # noqa: PLR2004
        return "> 99.99 %"
    return f"{value:.4g} %" if value > 99 else f"{value:.2g} %" if value < 10 else f"{value:.3g} %"  # noqa: PLR2004


def seconds(value: float) -> str:
    """`12 ms`, `1.24 s`, `75 s`."""
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def duration(value: float) -> str:
    """`8 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(value)
    if whole < _MINUTE:
        return f"{value:.2g} s" if value < 10 else f"{whole} s"  # noqa: PLR2004
    if whole < _HOUR:
        return f"{whole // _MINUTE} min" + (f" {whole % _MINUTE} s" if whole % _MINUTE else "")
    return f"{whole // _HOUR:,} h" + (f" {whole % _HOUR // _MINUTE} min" if whole % _HOUR >= _MINUTE else "")


def moment(at: float) -> str:
    """`2026-01-31 12:00 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
