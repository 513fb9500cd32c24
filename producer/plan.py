"""What a submission would do, before it does it: counted, checked, estimated.

Nothing is written but to the temporary folder of this machine.

    source -> filters -> spool + collision check -> Plan -> shown, confirmed -> `submit`
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from producer.collisions import CollisionCheck
from producer.sources.filters import Skipped, chosen
from producer.sources.item import IMAGE_SUFFIXES, Item, Skip
from producer.sources.lookup import look_up
from producer.sources.resolve import Source, SourceSpec, open_source
from producer.sources.spool import Spool
from producer.sources.upload import upload_folder
from producer.uptodate import NOT_ASKED, Look
from worker.contract.errors import OutputCollision, SettingsError, SourceError
from worker.contract.messages import JobOptions
from worker.contract.outputs import OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

EXAMPLES = 5
_TELL_EVERY = 500


@dataclass(frozen=True)
class Plan:
    """What would be submitted. A context manager: it holds the list on disk until it is closed."""

    spec: SourceSpec
    root: S3Url | Path
    options: JobOptions
    spool: Spool
    images: int
    bytes: int
    """Of the images whose size is known."""

    unknown_sizes: int
    skipped: Skipped
    collisions: int
    """Outputs that another image would write as well."""

    collision_examples: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    """Examples: key of an image, and of its first output."""

    up_to_date: int | None = None
    """Images that workers would skip; None: not known."""

    up_to_date_basis: str = NOT_ASKED.basis
    """How that is known, or why it is not."""

    @property
    def folder(self) -> Path | None:
        """Local folder whose files have to be uploaded first."""
        return self.root if isinstance(self.root, Path) else None

    def check(self) -> None:
        """Refuse what cannot be done right.

        Raises:
            SourceError: nothing to submit.
            OutputCollision: two inputs would write one output.
        """
        if self.collisions:
            more = f"; {self.collisions:,} such outputs in all" if self.collisions > 1 else ""
            raise OutputCollision(f"{self.collision_examples[0]}: rename one, or submit them apart{more}")
        if not self.images:
            raise SourceError(_nothing(self))

    def with_outputs(self, outputs: OutputOptions) -> Plan:
        """The same, with what is only known when it is carried out, such as where a background was uploaded to."""
        return replace(self, options=self.options.model_copy(update=outputs.model_dump()))

    def close(self) -> None:
        """Give the disk space back."""
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
    listed: Callable[[int], None] = lambda count: None,
    look: Look | None = None,
) -> Plan:
    """List a source, choose from it, and check the outputs.

    Args:
        spec: the source and what to take of it.
        dest: prefix that outputs go under.
        options_for: the job's options, given the prefix that keys are under.
        store: for listing.
        listed: told the count now and then.
        look: makes what counts the images that are up to date; None: they are not counted.

    Raises:
        SourceError: the source cannot be read.
        SettingsError: source and destination overlap.
        ServiceError: S3 did not do its part.
    """
    source = open_source(spec, store)
    refuse = _overlap(source, dest)
    store.check(dest)
    options = options_for(upload_folder(dest, source.root) if isinstance(source.root, Path) else source.root)
    skipped: Skipped = Counter()
    existing = look(options, source.root) if look else None
    with contextlib.ExitStack() as stack:
        spool, check = stack.enter_context(Spool()), stack.enter_context(CollisionCheck())
        sums = _Sums()
        for item in _items(spec, source, store, skipped):
            refuse(item)
            rivals = options.rival_keys(item.key)
            check.add(item.key, rivals)
            spool.add(item)
            sums.add(item, rivals[0])
            if existing is not None:
                existing.see(item)
            if sums.images % _TELL_EVERY == 0:
                listed(sums.images)
        listed(sums.images)
        collisions, examples = _settle(check, spool, sums, skipped, options)
        check.close()
        up_to_date = existing.result() if existing else NOT_ASKED
        stack.pop_all()
    return Plan(
        spec=spec,
        root=source.root,
        options=options,
        spool=spool,
        images=len(spool),
        bytes=sums.bytes,
        unknown_sizes=sums.unknown,
        skipped=skipped + source.skipped,
        collisions=collisions,
        collision_examples=examples,
        outputs=tuple(sums.examples),
        up_to_date=up_to_date.images,
        up_to_date_basis=up_to_date.basis,
    )


@dataclass
class _Sums:
    images: int = 0
    bytes: int = 0
    unknown: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, item: Item, output: str) -> None:
        self.images += 1
        self.count(item, 1)
        if len(self.examples) < EXAMPLES:
            self.examples.append((item.key, output))

    def count(self, item: Item, sign: int) -> None:
        if item.size is None:
            self.unknown += sign
        else:
            self.bytes += sign * item.size


def _items(spec: SourceSpec, source: Source, store: ObjectStore, skipped: Skipped) -> Iterator[Item]:
    root = source.root
    if not spec.head or isinstance(root, Path):
        return chosen(source.items, spec.filters, skipped)
    return chosen(source.items, spec.filters, skipped, look_up=lambda items: look_up(store, root, items, skipped))


def _settle(
    check: CollisionCheck, spool: Spool, sums: _Sums, skipped: Skipped, options: JobOptions
) -> tuple[int, tuple[str, ...]]:
    """Drop what was listed twice; count and name what collides."""
    count = 0
    examples: list[str] = []
    for first, second, same in check.found():
        rival = spool.item(second)
        if same:
            if spool.drop(second):
                sums.count(rival, -1)
                skipped[Skip.DUPLICATE] += 1
            continue
        count += 1
        if len(examples) < EXAMPLES:
            examples.append(_in_words(spool.item(first).key, rival.key, options))
    return count, tuple(examples)


def _in_words(first: str, second: str, options: JobOptions) -> str:
    output = min(set(options.rival_keys(first)) & set(options.rival_keys(second)))
    return f"{first!r} and {second!r} would both be written to {output!r}"


def _overlap(source: Source, dest: S3Url) -> Callable[[Item], None]:
    """Inputs are never written: no input may lie under the destination.

    A source that is everything under a prefix is refused at once; what a glob or a list picks is looked at one by one.
    """
    root = source.root
    if isinstance(root, Path) or root.bucket != dest.bucket:
        return lambda item: None
    if source.whole or root.key.startswith(dest.key):
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
    """Inputs are never written: neither place may lie inside the other.

    Raises:
        SettingsError: one does.
    """
    if source.bucket == dest.bucket and (source.key.startswith(dest.key) or dest.key.startswith(source.key)):
        beside = f"beside the source, such as s3://{dest.bucket}/{source.key.rstrip('/')}-masks/"
        raise SettingsError(
            f"{source} and {dest} overlap, so an output could replace an input: choose a destination "
            f"{beside if source.key and not source.key.startswith(dest.key) else 'in another bucket'}"
        )


def _nothing(plan: Plan) -> str:
    if not plan.skipped or set(plan.skipped) == {Skip.NOT_AN_IMAGE}:
        return (
            f"no images under {plan.spec}: names must end in {' '.join(sorted(IMAGE_SUFFIXES))}, "
            "unless --any-suffix is given"
        )
    return f"no images under {plan.spec} are left: {skips_in_words(plan.skipped)}"


def skips_in_words(skipped: Skipped) -> str:
    """`12 without an image suffix, 3 excluded`."""
    return ", ".join(f"{count:,} {reason.words}" for reason, count in skipped.most_common())
