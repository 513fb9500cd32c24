"""Find out what a submission would do before it does it: count, check and estimate.

Nothing is written except to the temporary folder of this machine.

    source -> filters -> spool + collision check -> Plan -> shown, confirmed -> `submit`
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from producer.collisions import CollisionCheck
from producer.sources.filters import choose
from producer.sources.item import IMAGE_SUFFIXES, UNREADABLE_SUFFIXES, Item, Skip, Skipped, has_image_suffix
from producer.sources.key_source import KeySource
from producer.sources.line_reader import STDIN
from producer.sources.lookup import look_up
from producer.sources.resolve import SourceSpec, resolve_source
from producer.sources.spool import Spool
from producer.sources.upload import upload_folder
from producer.uptodate import NOT_COUNTED, UpToDateCheck
from worker.contract.errors import OutputCollision, SettingsError, SourceError
from worker.contract.messages import MAX_KEY_BYTES, JobOptions
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

EXAMPLES = 5
_REPORT_EVERY = 500
"""Images between two calls of `on_listed`."""

StartCheck = Callable[[JobOptions, S3Url | Path], UpToDateCheck]
"""Starts to count up-to-date images, given the options of the job and the root of its source."""


@dataclass(frozen=True)
class Plan:
    """What would be submitted. A context manager: it keeps the list of images on disk until it is closed."""

    spec: SourceSpec
    root: S3Url | Path
    options: JobOptions
    spool: Spool
    images: int
    bytes: int
    """Total of the images whose size is known."""

    unknown_sizes: int
    unreadable: int
    """Images in a format that no worker reads (HEIC), by their names; they will fail."""

    skipped: Skipped
    collisions: int
    """Outputs that a second image would write too."""

    collision_examples: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    """Examples: key of an image, and of its first output."""

    up_to_date: int | None = None
    """Images that workers would skip; None: unknown."""

    up_to_date_basis: str = NOT_COUNTED.basis
    """How `up_to_date` is known, or why it is not."""

    @property
    def folder(self) -> Path | None:
        """Local folder whose files must be uploaded first."""
        return self.root if isinstance(self.root, Path) else None

    def check(self) -> None:
        """Refuse a plan that cannot be submitted.

        Raises:
            SourceError: nothing to submit.
            OutputCollision: two inputs would write one output.
        """
        if self.collisions:
            more = f"; {self.collisions:,} such outputs in all" if self.collisions > 1 else ""
            raise OutputCollision(f"{self.collision_examples[0]}: rename one, or submit them to two destinations{more}")
        if not self.images:
            raise SourceError(_nothing_to_submit(self))

    def with_outputs(self, outputs: OutputOptions) -> Plan:
        """Return the plan with output options known only at submission, such as the place of an uploaded background."""
        return replace(self, options=self.options.model_copy(update=outputs.model_dump()))

    def close(self) -> None:
        """Release the disk space."""
        self.spool.close()

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_plan(
    spec: SourceSpec,
    dest: S3Url,
    options_for: Callable[[S3Url], JobOptions],
    store: ObjectStore,
    *,
    on_listed: Callable[[int], None] = lambda count: None,
    start_check: StartCheck | None = None,
) -> Plan:
    """List a source, choose from it, and check the outputs.

    Args:
        spec: the source, and which items of it to take.
        dest: prefix for the outputs.
        options_for: returns the job's options, given the prefix that keys are relative to.
        store: lists the source.
        on_listed: called with the number of images so far, every 500 images and at the end.
        start_check: see `StartCheck`; None: up-to-date images are not counted.

    Raises:
        SourceError: the source cannot be read, or a key is too long for S3.
        SettingsError: source and destination overlap.
        ServiceError: S3 failed.
    """
    source = resolve_source(spec, store)
    refuse_input = _overlap_check(source, dest)
    store.check(dest)
    options = options_for(upload_folder(dest, source.root) if isinstance(source.root, Path) else source.root)
    up_to_date = start_check(options, source.root) if start_check else None
    with contextlib.ExitStack() as on_error:
        listing = on_error.enter_context(_Listing(options, up_to_date))
        for item in _chosen(spec, source, store, listing.skipped):
            refuse_input(item)
            listing.add(item)
            if listing.images % _REPORT_EVERY == 0:
                on_listed(listing.images)
        on_listed(listing.images)
        plan = listing.as_plan(spec, source.root)
        on_error.pop_all()
    return plan


class _Listing:
    """Counts, checks and keeps the images of a plan while they are listed."""

    def __init__(self, options: JobOptions, up_to_date: UpToDateCheck | None) -> None:
        self.images = 0
        self.skipped: Skipped = Counter()
        self._options, self._up_to_date = options, up_to_date
        self._spool, self._collisions = Spool(), CollisionCheck()
        self._bytes = self._unknown_sizes = self._unreadable = 0
        self._outputs: list[tuple[str, str]] = []

    def add(self, item: Item) -> None:
        """Take one image."""
        refuse_long_keys(self._options, item.key)
        rivals = self._options.collision_keys(item.key)
        self._collisions.add(item.key, rivals)
        self._spool.add(item)
        self.images += 1
        self._count(item, 1)
        if len(self._outputs) < EXAMPLES:
            self._outputs.append((item.key, rivals[0]))
        if self._up_to_date is not None:
            self._up_to_date.add(item)

    def as_plan(self, spec: SourceSpec, root: S3Url | Path) -> Plan:
        """Return the plan of all images added. It owns the spool from now on."""
        collisions, examples = self._resolve_collisions()
        up_to_date = self._up_to_date.result() if self._up_to_date else NOT_COUNTED
        self._collisions.close()
        return Plan(
            spec=spec,
            root=root,
            options=self._options,
            spool=self._spool,
            images=len(self._spool),
            bytes=self._bytes,
            unknown_sizes=self._unknown_sizes,
            unreadable=self._unreadable,
            skipped=self.skipped,
            collisions=collisions,
            collision_examples=examples,
            outputs=tuple(self._outputs),
            up_to_date=up_to_date.images,
            up_to_date_basis=up_to_date.basis,
        )

    def _count(self, item: Item, sign: int) -> None:
        self._unreadable += sign * has_image_suffix(item.key, UNREADABLE_SUFFIXES)
        if item.size is None:
            self._unknown_sizes += sign
        else:
            self._bytes += sign * item.size

    def _resolve_collisions(self) -> tuple[int, tuple[str, ...]]:
        """Drop keys that were listed twice; count the other collisions and describe the first ones."""
        count = 0
        examples: list[str] = []
        for first, second, same_key in self._collisions.found():
            rival = self._spool.item(second)
            if same_key:
                if self._spool.drop(second):
                    self._count(rival, -1)
                    self.skipped[Skip.DUPLICATE] += 1
                continue
            count += 1
            if len(examples) < EXAMPLES:
                examples.append(_collision_in_words(self._spool.item(first).key, rival.key, self._options))
        return count, tuple(examples)

    def __enter__(self) -> _Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self._collisions.close()
        self._spool.close()


def _chosen(spec: SourceSpec, source: KeySource, store: ObjectStore, skipped: Skipped) -> Iterator[Item]:
    root, items = source.root, source.items(skipped)
    if not spec.head or isinstance(root, Path):
        return choose(items, spec.filters, skipped)
    return choose(items, spec.filters, skipped, look_up=lambda named: look_up(store, root, named, skipped))


def _collision_in_words(first: str, second: str, options: JobOptions) -> str:
    output = min(set(options.collision_keys(first)) & set(options.collision_keys(second)))
    return f"{first!r} and {second!r} would both be written to {output!r}"


def _overlap_check(source: KeySource, dest: S3Url) -> Callable[[Item], None]:
    """Return a function that refuses an input under the destination: inputs are never overwritten.

    A source that is everything under a prefix is refused at once; the items of a glob or a list are checked one by one.
    """
    root = source.root
    if isinstance(root, Path) or root.bucket != dest.bucket:
        return lambda item: None
    if source.is_whole or root.key.startswith(dest.key):
        refuse_overlap(root, dest)
    if not dest.key.startswith(root.key):
        return lambda item: None
    inside = dest.key[len(root.key) :]

    def refuse(item: Item) -> None:
        if item.key.startswith(inside):
            raise SettingsError(
                f"{root / item.key} lies under the destination {dest}, so an output could replace it: "
                "choose another destination, or --exclude it"
            )

    return refuse


def refuse_overlap(source: S3Url, dest: S3Url) -> None:
    """Refuse two prefixes of which one contains the other: inputs are never overwritten.

    Raises:
        SettingsError: the prefixes overlap.
    """
    if source.bucket == dest.bucket and (source.key.startswith(dest.key) or dest.key.startswith(source.key)):
        beside = f"beside the source, such as s3://{dest.bucket}/{source.key.rstrip('/')}-masks/"
        raise SettingsError(
            f"{source} and {dest} overlap, so an output could replace an input: choose a destination "
            f"{beside if source.key and not source.key.startswith(dest.key) else 'in another bucket'}"
        )


def _nothing_to_submit(plan: Plan) -> str:
    if not plan.skipped:
        if plan.spec.manifest or STDIN in plan.spec.places:
            return f"no images under {' '.join(plan.spec.places)}: the list of keys is empty"
        place = str(plan.folder or plan.options.source)
        if str(plan.spec).rstrip("/") == place.rstrip("/"):
            return f"no images under {place}: it is empty; check the spelling (files of earlier jobs do not count)"
        return f"no images: {plan.spec} matches nothing, and no name under {place} begins like it"
    if {Skip.NOT_AN_IMAGE} <= set(plan.skipped) <= {Skip.NOT_AN_IMAGE, Skip.MARKER}:
        return (
            f"no images under {plan.spec}: names must end in {' '.join(sorted(IMAGE_SUFFIXES))}, "
            "unless --any-suffix is given"
        )
    return f"no images under {plan.spec} are left: {skips_in_words(plan.skipped)}"


def refuse_long_keys(options: JobOptions, key: str) -> None:
    """Refuse an image whose own key or the key of an output is longer than S3 allows.

    Raises:
        SourceError: names the image, the length and the remedy.
    """
    places = [("it", options.source / key)]
    places += [(f"its {kind.value}", options.dest / options.output_key(key, kind)) for kind in options.outputs]
    for what, place in places:
        if len(place.key) * 4 > MAX_KEY_BYTES and (length := len(place.key.encode())) > MAX_KEY_BYTES:
            raise SourceError(
                f"{key!r}: {what} would have a key of {length:,} bytes in bucket {place.bucket!r}, S3 allows "
                f"{MAX_KEY_BYTES:,}: rename it, --exclude it, or choose a shorter destination"
            )


def skips_in_words(skipped: Skipped) -> str:
    """Return a text such as `12 without an image suffix, 3 excluded`."""
    return ", ".join(f"{count:,} {reason.words}" for reason, count in skipped.most_common())
