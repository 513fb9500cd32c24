"""`maskmill cut`: the pictures of a folder in, cut-outs in a folder, on this machine, with one command."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from producer.backgrounds import OutputRequest
from producer.cli.output_options import output_options_with
from producer.sources.item import Item
from worker.cli.network import prepare, resolved
from worker.contract import console, local_services, settings
from worker.contract.console import Exit
from worker.contract.errors import ServiceError, SettingsError, SourceError, StandaloneError
from worker.contract.outputs import OutputKind
from worker.contract.settings import ModelSettings, Settings
from worker.model.sources import catalogue
from worker.model.sources.prepared import DEFAULT_SOURCE
from worker.standalone.stack import model_variables
from worker.umbrella.display import Display
from worker.umbrella.made import MadeRecord
from worker.umbrella.pictures import Pictures, describe_skipped
from worker.umbrella.session import Session, services
from worker.umbrella.stop_signal import StopSignal
from worker.umbrella.totals import Totals

if TYPE_CHECKING:
    from worker.umbrella.folder_run import FolderRun

_SHOWN_FAILURES = 20
_WATCH_SECONDS = 2.0
"""Between two looks at the folder. A file is taken when size and time stand still for two looks."""

_EXAMPLES = """\b
Examples:
  maskmill cut ./photos ./cutouts
  maskmill cut ./photos ./cutouts --output mask,cutout --format webp
  maskmill cut ./photos ./shop --output composite --background '#ffffff' --format jpeg --crop --crop-margin 5%
  maskmill cut ./photos ./cutouts --network u2netp --watch

\b
Exit codes: 0 every picture is done; 1 usage or set-up error; 3 some pictures failed;
5 cancelled by `maskmill cancel`; 130 interrupted. With --watch, Ctrl-C gives 0 or 3.
"""


@click.command("cut", epilog=_EXAMPLES)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@output_options_with(OutputKind.CUTOUT, background="Background of composites: '#rrggbb' or a picture. [#ffffff]")
@click.option(
    "--network",
    metavar="NAME",
    help="The network: a name of `maskmill model list --known`, builtin:NAME, or a bundle in a folder or on a model "
    "hub. [u2netp if it can be had, else builtin:starter]",
)
@click.option(
    "--follow-links",
    is_flag=True,
    help="Also cut out what links in SOURCE lead to outside it. Without it such links are counted and left out.",
)
@click.option("--force", is_flag=True, help="Also make the outputs again that are up to date.")
@click.option("--watch", is_flag=True, help="Keep looking for new and changed pictures, until Ctrl-C.")
def cut_command(
    *,
    source: Path,
    dest: Path,
    outputs: OutputRequest,
    network: str | None,
    follow_links: bool,
    force: bool,
    watch: bool,
) -> int:
    """Cut the subject out of every picture of SOURCE, a folder or one file, and write the results to the folder DEST.

    Everything runs on this machine, on all cores, and stops at the end. Outputs keep the tree of SOURCE and appear as
    they are done, beside a report page. Run the command again to do only what is new or changed. Ctrl-C keeps what is
    done.

    A picture is done again if its size or time of change differs, if one of its outputs is missing, or if options or
    network differ; a network that was replaced under the same name needs --force. Outputs of pictures that were removed
    stay.
    """
    stop = StopSignal()
    config = _with_network(settings.load(), network)
    pictures = Pictures(source, dest, outputs.options, follow_links=follow_links)
    run = Cut(pictures, outputs, config, network is not None, stop)
    try:
        return run.watch() if watch else run.once(force=force)
    except ServiceError as error:
        logs = local_services.folder() / "logs"
        raise StandaloneError(f"the services on this machine failed, see the logs in {logs}: {error}") from error


@dataclass(frozen=True)
class Cut:
    """One call of the command."""

    pictures: Pictures
    request: OutputRequest
    config: Settings
    named: bool
    """The user asked for the network of the settings."""
    stop: StopSignal

    def once(self, *, force: bool) -> int:
        """Make what is new or changed, and return the exit code."""
        found, skipped = self.pictures.scan()
        if not found:
            raise SourceError(f"no pictures in {self.pictures.source} ({describe_skipped(skipped) or 'it is empty'})")
        left_out = describe_skipped(skipped)
        _print(f"{_pictures(len(found))} in {self.pictures.source}{f', {left_out}' if left_out else ''}")
        with self._made() as made:
            if not force and not self._missing(found, made, self._likely_model()):
                _print(f"nothing to do: all of them are up to date in {self.pictures.dest}")
                return Exit.OK
            began, totals, finished = time.monotonic(), Totals(), False
            with contextlib.suppress(KeyboardInterrupt), Display() as display, self._session(display) as session:
                todo = found if force else self._missing(found, made, session.model)
                if len(todo) < len(found):
                    display.say(f"{len(found) - len(todo):,} are up to date, {len(todo):,} to do")
                with self._run(session, made, display) as run:
                    totals = run.totals
                    finished = self._process(run, todo, display)
                    if finished:
                        report = run.write_report()
                        display.stop()
                        self._say_done(totals, report, time.monotonic() - began)
        return _exit_code(totals) if finished else self._say_interrupted(totals)

    def watch(self) -> int:
        """Make what is new or changed until Ctrl-C, and return the exit code."""
        totals, report = Totals(), None
        with contextlib.suppress(KeyboardInterrupt), self._made() as made, Display() as display:
            self._prepare_dest()
            with self._session(display) as session, self._run(session, made, display) as run:
                totals = run.totals
                display.say(f"watching {self.pictures.source}; press Ctrl-C to stop")
                try:
                    for todo in self._settled(made, session, run, display):
                        self._process_watched(run, todo, display)
                except KeyboardInterrupt:
                    self._finish_in_flight(run, display)
                report = run.write_report()
        _print(f"stopped: {totals.ok:,} done, {len(totals.failures):,} failed")
        self._print_places(report if totals.done else None)
        return _exit_code(totals)

    def _settled(self, made: MadeRecord, session: Session, run: FolderRun, display: Display) -> Iterator[list[Item]]:
        """Yield the pictures to do at each look; those that changed since the last look are left for the next."""
        before: set[Item] = set()
        told = ""
        while True:
            session.check()
            try:
                found, _ = self.pictures.scan()
            except SourceError as error:  # a file that vanishes while it is listed, for example
                found = []
                if str(error) != told:
                    told = str(error)
                    display.say(f"waiting: {told}")
            still = [item for item in found if item in before]
            before = set(found)
            missing = self._missing(still, made, session.model)
            yield [item for item in missing if (item.key, item.size, item.modified) not in run.failed]
            self.stop.check()
            time.sleep(_WATCH_SECONDS)

    def _process_watched(self, run: FolderRun, todo: list[Item], display: Display) -> None:
        if not todo:
            return
        before = run.totals.ok, len(run.totals.failures)
        try:
            run.process(todo)
        except SourceError as error:
            display.say(f"trying again: {error}")
            run.process([])
        ok, failed = run.totals.ok - before[0], len(run.totals.failures) - before[1]
        display.say(f"{time.strftime('%H:%M:%S')} {ok:,} done{f', {failed:,} failed' if failed else ''}")
        _print_failures(run.totals.failures[before[1] :])
        run.write_report()

    def _process(self, run: FolderRun, todo: list[Item], display: Display) -> bool:
        """Process the pictures, and return whether that was finished, not interrupted."""
        try:
            run.process(todo)
        except KeyboardInterrupt:
            self._finish_in_flight(run, display)
            return False
        return True

    def _finish_in_flight(self, run: FolderRun, display: Display) -> None:
        self.stop.acknowledge()
        display.say("stopping: the pictures in progress are being finished; Ctrl-C again stops at once")
        run.interrupt()

    @contextlib.contextmanager
    def _session(self, display: Display) -> Iterator[Session]:
        """Yield services whose workers run the network; it is prepared first if new workers are needed."""
        self._prepare_dest()
        running = local_services.find_running(local_services.folder())
        model = resolved(self.config)[0].model
        if running is not None and running.workers:
            display.say(f"using the workers of `maskmill {running.command}`, process {running.pid}")
        else:
            config, network = prepare(self.config, display.say)
            model = config.model
            entry = catalogue.find(model.source)
            if network.why:
                display.say(f"network: {network.why}")
            if entry is not None and entry.licence.notice:
                display.say(f"network: {entry.name}: {entry.licence.notice}")
            display.say("starting the workers")
        with services("cut", model, named=self.named, say=display.say) as session:
            yield session

    def _run(self, session: Session, made: MadeRecord, display: Display) -> FolderRun:
        # Celery and the report take a second to import: now, while the workers start, and not before.
        from worker.umbrella.folder_run import FolderRun

        def on_progress(totals: Totals) -> None:
            self.stop.check()
            display.update(totals)

        recipe = self._recipe(session.model)
        return FolderRun(session, self.pictures, self.request, made, recipe=recipe, on_progress=on_progress)

    def _made(self) -> MadeRecord:
        return MadeRecord(local_services.folder() / "folders", self.pictures.source, self.pictures.dest)

    def _missing(self, items: list[Item], made: MadeRecord, model: dict[str, str]) -> list[Item]:
        """Return the pictures whose outputs are not up to date."""
        recipe, dest, options = self._recipe(model), self.pictures.dest, self.request.options
        return [item for item in items if not made.is_up_to_date(item, recipe, dest, options)]

    def _likely_model(self) -> dict[str, str]:
        """Return the variables of the network that would run, as far as it is known without fetching anything."""
        running = local_services.find_running(local_services.folder())
        if running is not None and running.workers and not self.named:
            return running.model
        return model_variables(resolved(self.config)[0].model)

    def _recipe(self, model: dict[str, str]) -> str:
        """Return a digest of everything but the picture that decides the outputs."""
        options = self.request.options.model_dump_json()
        background = self.request.background_file
        content = hashlib.sha256(background.read_bytes()).hexdigest() if background else ""
        text = json.dumps([options, content, sorted(model.items())])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def _prepare_dest(self) -> None:
        try:
            self.pictures.dest.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"{self.pictures.dest} cannot be created: {error.strerror}") from error

    def _say_done(self, totals: Totals, report: Path | None, seconds: float) -> None:
        """Print the result. Services are stopped afterwards, which takes a few seconds more."""
        _print(f"{totals.ok:,} done, {len(totals.failures):,} failed, in {seconds:.0f} s")
        _print_failures(totals.failures)
        self._print_places(report)

    def _say_interrupted(self, totals: Totals) -> int:
        count = f"{totals.ok:,} of {totals.planned:,} pictures are" if totals.planned else "no picture is"
        _print(f"interrupted: {count} done; they stay in {self.pictures.dest}")
        _print(f"to go on, run the same command again: {shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}")
        return Exit.INTERRUPTED

    def _print_places(self, report: Path | None) -> None:
        _print(f"pictures are in {self.pictures.dest}")
        if report is not None:
            _print(f"report: {report}")


def _with_network(config: Settings, network: str | None) -> Settings:
    """Return the settings with the network of the option.

    Raises:
        SettingsError: there is no network of that name.
    """
    if network is None:
        return config
    known = [DEFAULT_SOURCE, *(entry.name for entry in catalogue.networks())]
    if network not in known and ":" not in network and not Path(network).expanduser().is_dir():
        close = difflib.get_close_matches(network, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "`maskmill model list --known` shows the names"
        raise SettingsError(f"--network {network}: no such network; {hint}")
    model = ModelSettings.model_validate(config.model.model_dump() | {"source": network})
    return config.model_copy(update={"model": model})


def _exit_code(totals: Totals) -> int:
    if totals.cancelled:
        return Exit.CANCELLED
    return Exit.SOME_FAILED if totals.failures else Exit.OK


def _print_failures(failures: list[dict[str, str]]) -> None:
    for failure in failures[:_SHOWN_FAILURES]:
        _print(f"  failed: {failure['key']}: {failure['code']}: {failure['message']}")
    if len(failures) > _SHOWN_FAILURES:
        _print(f"  and {len(failures) - _SHOWN_FAILURES:,} more: see the report")


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _print(text: str) -> None:
    console.out.print(text, markup=False, soft_wrap=True)
