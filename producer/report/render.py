"""Render the page. Keys and messages are untrusted, so the template escapes every value."""

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
from producer.report.thumbnails import PicturePair
from producer.watch import mean_rate
from worker.contract.job import JobView
from worker.contract.messages import FLAGS, OutcomeKind
from worker.contract.settings import JobSettings
from worker.contract.stages import Stage

_STAGE_WORDS = {
    Stage.CHECK: "check whether the outputs are up to date",
    Stage.FETCH: "download from S3",
    Stage.DECODE: "decode to pixels",
    Stage.PREPARE: "resize to the network's input",
    Stage.INFER: "run the network",
    Stage.RENDER: "compose the outputs, encode",
    Stage.HOLD: "prefetched, waiting for its chunk to start",
    Stage.STORE: "upload to S3",
}
_FLAG_WORDS = {
    "empty": "no subject found",
    "full": "everything is part of the subject",
    "soft": "semi-transparent over whole areas: the network is undecided",
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
class _Segment:
    """One outcome's share of the bar of all images; the bar is 1,000 units wide."""

    name: str
    count: int
    x: float
    width: float


def render(
    view: JobView,
    survey: Survey,
    pairs: Iterable[PicturePair],
    *,
    now: float,
    jobs: JobSettings,
    places: tuple[str, str] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        view: the job.
        survey: survey of its outcomes.
        pairs: pictures of the samples, those that need review first.
        now: time of the report, in Unix seconds.
        jobs: price of a core-hour and its currency, for the costs; without a price they are left out.
        places: source and destination as the user knows them; None: those of the job.
    """
    files = resources.files("producer.report") / "page"
    style, script = ((files / name).read_text("utf-8") for name in ("report.css", "report.js"))
    cards = [_card(pair) for pair in pairs]
    return _template().render(
        view=view,
        places=places or (str(view.options.source), str(view.options.dest)),
        survey=survey,
        style=Markup(style),  # noqa: S704 -- a file of this package; the page's policy names its digest
        style_digest=_digest(style),
        script=Markup(script),  # noqa: S704
        script_digest=_digest(script),
        tiles=list(_tiles(view, survey, jobs)),
        segments=list(_segments(view)),
        pictures=cards,
        picture_note=_picture_note(view, len(cards)),
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


def _tiles(view: JobView, survey: Survey, jobs: JobSettings) -> Iterator[_Tile]:
    succeeded, failed, total = view.ok + view.skipped, view.failed + view.dead, view.total or 0
    yield _Tile("images", f"{total:,}", filesize.decimal(view.bytes) if view.bytes else "")
    up_to_date = f", {view.skipped:,} up to date" if view.skipped else ""
    yield _Tile("succeeded", f"{succeeded:,}", (percent(succeeded / total) if total else "") + up_to_date)
    yield _Tile("failed", f"{failed:,}", percent(failed / total) if failed and total else "", "bad" if failed else "")
    review = survey.needs_review
    note = f"of {survey.assessed:,} masks" if survey.assessed else "no new masks"
    yield _Tile("need review", f"{review:,}", note, "review" if review else "")
    if rate := mean_rate(view):
        yield _Tile("images/s", f"{rate:.3g}", f"over {duration(view.done / rate)}")
    if view.core_seconds and view.ok:
        per_image = view.core_seconds / view.ok
        yield _Tile("core-s per image", f"{per_image:.3g}", f"{_core_time(view.core_seconds)} in total")
        price, currency = jobs.price_per_core_hour, f" {jobs.currency}" if jobs.currency else ""
        if price is not None:
            cost, total_cost = per_image * 1000 / _HOUR * price, view.core_seconds / _HOUR * price
            note = f"{total_cost:.3g}{currency} in total, at {price:g} per core-hour"
            yield _Tile("cost per 1,000", f"{cost:.3g}{currency}", note)


def _core_time(seconds: float) -> str:
    return f"{seconds:,.3g} core-seconds" if seconds < _HOUR else f"{seconds / _HOUR:,.3g} core-hours"


def _segments(view: JobView) -> Iterator[_Segment]:
    counts = {kind.value: int(getattr(view, kind.value)) for kind in OutcomeKind}
    total = max(view.total or 0, sum(counts.values()))
    counts["remaining"] = total - sum(counts.values())
    x = 0.0
    for name, count in counts.items():
        if count:
            width = max(2.0, 1000 * count / total)  # one failure in a million stays visible
            yield _Segment(name, count, round(min(x, 1000 - width), 2), round(width, 2))
            x += width


def _card(pair: PicturePair) -> dict[str, Any]:
    outcome, quality = pair.outcome, pair.outcome.quality
    return {
        "pair": pair,
        "key": outcome.key,
        "quality": quality,
        "flags": quality.flags if quality else (),
        "review": bool(quality and quality.needs_review),
        "skipped": outcome.kind is OutcomeKind.SKIPPED,
        "seconds": outcome.seconds,
        "notes": outcome.notes,
    }


def _picture_note(view: JobView, count: int) -> str:
    if not count:
        return "No pictures: no image of this job has an output yet."
    total = view.ok + view.skipped
    which = f"All {count:,} images with an output" if count >= total else f"A sample of {count:,} of {total:,} images"
    return f"{which}; masks that need review come first. Drag the slider or use the arrow keys to compare."


def _filters(view: JobView, survey: Survey, cards: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the filter buttons: how many pictures on this page each one shows, and how many images the job has."""
    yield {
        **{"flag": "", "name": "All", "title": "every picture on this page"},
        **{"shown": len(cards), "whole": view.ok + view.skipped},
    }
    if survey.needs_review:
        yield {
            **{"flag": "review", "name": "Needs review", "title": "empty, full or soft over whole areas"},
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
    return f"Percentiles come from a sample of {survey.timed:,} images." if survey.timed < view.ok else ""


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
        yield "retried", f"{view.epoch:,} time{'' if view.epoch == 1 else 's'}"
    yield "images per chunk", f"{view.chunk_images:,}" if view.chunk_images else "?"


def _plain(value: object) -> str:
    return "yes" if value is True else str(value)


def percent(share: float) -> str:
    """Return a share as `12 %`: two digits below 10 %, and `0 %` or `100 %` only if the share is exactly 0 or 1."""
    value = 100 * share
    if 0 < value < 0.01:  # noqa: PLR2004
        return "< 0.01 %"
    if 99.99 < value < 100:  # noqa: PLR2004
        return "> 99.99 %"
    return f"{value:.4g} %" if value > 99 else f"{value:.2g} %" if value < 10 else f"{value:.3g} %"  # noqa: PLR2004


def seconds(value: float) -> str:
    """Return a time as `12 ms`, `1.24 s` or `75 s`."""
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def duration(value: float) -> str:
    """Return a length of time as `8 s`, `3 min 5 s` or `2 h 10 min`."""
    whole = round(value)
    if whole < _MINUTE:
        return f"{value:.2g} s" if value < 10 else f"{whole} s"  # noqa: PLR2004
    if whole < _HOUR:
        return f"{whole // _MINUTE} min" + (f" {whole % _MINUTE} s" if whole % _MINUTE else "")
    return f"{whole // _HOUR:,} h" + (f" {whole % _HOUR // _MINUTE} min" if whole % _HOUR >= _MINUTE else "")


def moment(at: float) -> str:
    """Return Unix seconds as `2026-01-31 12:00:00 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
