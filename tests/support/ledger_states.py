"""All orders in which two workers, a feeder, a reconciler, a bookkeeper and a user can work on one small job.

    Explorer.explore: breadth first from a new job
        load a state into Redis -> one step of a process, by the real scripts -> read the state -> check what must hold

A state is what the scripts can see in Redis, without times, and what is outside of the ledger: the messages in the
queue, what each worker holds, and the faults and commands that may still come. The same state reached in two ways, or
with the two workers exchanged, is explored once. Nothing waits for a clock: "silent for long" is 0 s, "not yet" a year.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from worker.contract import outcome_codec, redis_keys
from worker.contract.job import ENDED
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.chunks import ChunkLease, ChunkLedger, Verdict
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, Outcome, OutcomeKind
from worker.contract.settings import RedisSettings

CHUNKS, SIZE = 2, 2
TOTAL = CHUNKS * SIZE
WORKERS = ("a", "b")
JOB = "job"
YEAR = 3e7
OPTIONS = JobOptions(source="s3://in/", dest="s3://out/")
GOOD = (OutcomeKind.OK, OutcomeKind.SKIPPED)
BAD = (OutcomeKind.FAILED, OutcomeKind.DEAD)
LIVE = ("running", "paused")

_SAVE = """
local dumps = {}
for i, key in ipairs(KEYS) do dumps[i] = redis.call('DUMP', key) or '' end
return {dumps, redis.call('HGETALL', KEYS[1]), redis.call('GET', KEYS[2]) or '', redis.call('HGETALL', KEYS[3]),
  redis.call('ZRANGE', KEYS[4], 0, -1), redis.call('HGETALL', KEYS[5]), redis.call('HGETALL', KEYS[6]),
  redis.call('GET', KEYS[7]) or '', redis.call('LRANGE', KEYS[8], 0, -1), redis.call('XRANGE', KEYS[9], '-', '+')}
"""
_LOAD = """
redis.call('DEL', unpack(KEYS))
for i = 1, 8 do if #ARGV[i] > 0 then redis.call('RESTORE', KEYS[i], 0, ARGV[i]) end end
"""
_NOT_SEEN = ("_at", "core_seconds", "reason")
"""Ends of the names of fields that no script decides on, except for times of S3 that no step here sets."""


class Connection(RedisConnection):
    """Sends a script together with what puts the job into a state before and reads it after: one round trip a step."""

    def __init__(self, settings: RedisSettings) -> None:
        """Connect on the first call."""
        super().__init__(settings, retries=0, client_name="explorer")
        self._keys = list(redis_keys.job_keys(settings.prefix, JOB))
        self._load, self._save = (self.client.script_load(text) for text in (_LOAD, _SAVE))
        self._sha: dict[str, str] = {}
        self._waiting: list[bytes] | None = None
        self._saved: list[Any] | None = None

    def set_state(self, dumps: list[bytes]) -> None:
        """Put the job into a state, with the next script."""
        self._waiting, self._saved = dumps, None

    def run(self, script: str, job: str, *args: object) -> Any:
        """Run a script of the ledger as `RedisConnection` does."""
        pipeline = self.client.pipeline(transaction=False)
        loads = self._add_load(pipeline)
        if script not in self._sha:  # a pipeline would ask for it each time
            self._sha[script] = self.client.script_load(self.script(script).script)
        pipeline.evalsha(self._sha[script], len(self._keys), *self._keys, *args)
        pipeline.evalsha(self._save, len(self._keys), *self._keys)
        answers = pipeline.execute()
        self._saved = answers[-1]
        return answers[int(loads)]

    def change(self, script: str, right: str, wrong: str) -> None:
        """Put a fault into a script, for a control of the exploration."""
        text = self.script(script).script
        assert right in text, f"{script}.lua has no {right!r}"
        self._sha[script] = self.client.script_load(text.replace(right, wrong))

    def load_now(self) -> None:
        """Put the job into its state at once, before calls that are not a single script."""
        pipeline = self.client.pipeline(transaction=False)
        if self._add_load(pipeline):
            pipeline.execute()
        self._saved = None

    def state(self) -> list[Any]:
        """Return what `_SAVE` reads."""
        if self._saved is None or self._waiting is not None:
            self.load_now()
            self._saved = self.client.evalsha(self._save, len(self._keys), *self._keys)
        return self._saved

    def _add_load(self, pipeline: Any) -> bool:
        dumps, self._waiting = self._waiting, None
        if dumps is not None:
            pipeline.evalsha(self._load, len(self._keys), *self._keys, *dumps)
        return dumps is not None


@dataclass(frozen=True)
class Bounds:
    """What may happen in one exploration."""

    faults: int = 0
    commands: int = 0
    """Of the user: cancel, pause, retry."""

    failing: tuple[int, ...] = ()
    """Images that may fail."""

    failovers: int = 0
    """Times that Redis may forget the last step: a replica without it takes over."""


@dataclass(frozen=True, order=True)
class Held:
    """A worker holds a chunk."""

    epoch: int
    chunk: int
    todo: tuple[int, ...]
    one_by_one: bool = False
    announced: bool = False
    known: bool = True
    """The broker knows that the worker holds the message; otherwise it may deliver it again."""


@dataclass(frozen=True)
class Outside:
    """What is not in the ledger."""

    queue: tuple[tuple[int, int], ...] = ()
    """Epoch and chunk of each message, sorted: workers may receive them in any order."""

    held: tuple[Held | None, Held | None] = (None, None)
    faults: int = 0
    commands: int = 0
    failovers: int = 0
    completed: tuple[int, ...] = (0, 0, 0)
    """By epoch: calls that were told that they completed the job."""

    closed: tuple[int, ...] = (0, 0, 0)
    """By epoch: calls that ended the job."""

    written_off: tuple[int, ...] = ()
    """Images without a state in Redis that count as cancelled."""


@dataclass(frozen=True)
class Ledgers:
    """What the scripts see in Redis."""

    record: tuple[tuple[str, str], ...]
    images: tuple[int, ...]
    attempts: tuple[tuple[str, str], ...]
    outstanding: tuple[int, ...]
    running: tuple[tuple[str, str], ...]
    suspects: tuple[tuple[str, str], ...]
    returned: tuple[int, ...]
    failures: tuple[int, ...]

    def field(self, name: str, default: str = "0") -> str:
        """Return a field of the record."""
        return dict(self.record).get(name, default)

    @property
    def status(self) -> str:
        """Return the status of the job."""
        return self.field("status")

    @property
    def epoch(self) -> int:
        """Return the epoch of the job."""
        return int(self.field("epoch"))

    def count(self, kind: OutcomeKind) -> int:
        """Return the counter of an outcome."""
        return int(self.field(kind.value))

    @property
    def done(self) -> int:
        """Return the number of images with an outcome, by the counters."""
        return sum(map(self.count, OutcomeKind))


@dataclass
class State:
    """A node of the graph."""

    ledger: Ledgers
    outside: Outside
    dumps: list[bytes]
    parent: int = -1
    step: str = ""
    before: int = -1
    """The state that a replica without the last write has."""

    content: int = -1
    """See `Explorer._content`."""

    follow: list[int] = field(default_factory=list)
    """States that lead to this one by steps that are no faults."""


Step = tuple[str, bool, Callable[[State], Outside]]
"""Its name, whether it is a fault or a command that need not come, and what it does in Redis and outside."""


class BrokenPromise(AssertionError):
    """Something that must always hold does not."""


class Explorer:
    """Explores the graph of states."""

    def __init__(self, settings: RedisSettings, bounds: Bounds, *, max_attempts: int = 3) -> None:
        self.bounds = bounds
        self.ledger = Ledger(settings)
        self.ledger.connection.close()
        self.connection = self.ledger.connection = Connection(settings)
        self.backlog = Backlog(self.connection)
        self.patient = ChunkLedger(self.connection, silence_seconds=YEAR)
        self.impatient = ChunkLedger(self.connection, silence_seconds=0)
        self._policy = JobPolicy(max_attempts=max_attempts)
        self.states: list[State] = []
        self.steps = 0
        self._known: dict[object, int] = {}
        self._contents: dict[object, int] = {}
        self._logged: dict[int, OutcomeKind] = {}

    def close(self) -> None:
        """Close all connections."""
        self.connection.close()

    def explore(self) -> None:
        """Visit every state.

        Raises:
            BrokenPromise: with the shortest way to the state.
        """
        self.ledger.create(JOB, OPTIONS, self._policy)
        assert self.ledger.seal(JOB, total=TOTAL, chunk_images=SIZE, size=1)
        start = Outside(faults=self.bounds.faults, commands=self.bounds.commands, failovers=self.bounds.failovers)
        found, dumps = self._read()
        self._add(State(found, start, dumps))
        waiting = deque([0])
        while waiting:
            number = waiting.popleft()
            for name, fault, act in self._steps(number):
                new = self._take(number, name, act)
                reached, is_new = self._add(new)
                if is_new:
                    waiting.append(reached)
                if not fault:
                    self.states[reached].follow.append(number)
        self._check_that_all_can_end()

    # -- the graph ------------------------------------------------------------------------------------------------

    def _take(self, number: int, name: str, act: Callable[[State], Outside]) -> State:
        state = self.states[number]
        self.connection.set_state(state.dumps)
        self.steps += 1
        outside = act(state)
        found, dumps = self._read()
        if name != "failover":
            outside = replace(outside, written_off=_written_off(state, name, found))
        new = State(found, outside, dumps, parent=number, step=name, before=number if self.bounds.failovers else -1)
        self._check(state, new)
        return new

    def _add(self, state: State) -> tuple[int, bool]:
        key: object = self._content(state)
        if state.outside.failovers and state.before >= 0:  # the way back is part of the state
            key = key, self._content(self.states[state.before])
        if key in self._known:
            return self._known[key], False
        self._known[key] = len(self.states)
        self.states.append(state)
        return len(self.states) - 1, True

    def _content(self, state: State) -> int:
        """Return a number for what a state holds; without failovers, the same if the workers are exchanged."""
        if state.content < 0:
            key = _key(state.ledger, state.outside)
            if not self.bounds.failovers:  # a pair of states is the same only if both are exchanged
                key = min(key, _key(*_exchanged(state.ledger, state.outside)))
            state.content = self._contents.setdefault(key, len(self._contents))
        return state.content

    def _read(self) -> tuple[Ledgers, list[bytes]]:
        dumps, record, images, attempts, outstanding, running, suspects, returned, failures, log = (
            self.connection.state()
        )
        images, returned = (text.encode("utf-8", "surrogateescape") for text in (images, returned))
        self._logged = {}
        for _, fields in log:
            outcome = Outcome.model_validate_json(fields[1])
            self._logged[outcome.index] = outcome.kind
        seen = {n: v for n, v in _pairs(record) if not n.endswith(_NOT_SEEN) and not n.startswith("model:")}
        ledger = Ledgers(
            record=tuple(sorted((n, v) for n, v in seen.items() if n not in ("options", "policy"))),
            images=tuple(outcome_codec.unpacked(images).ljust(TOTAL, b"\0")[:TOTAL]),
            attempts=tuple(sorted(_pairs(attempts))),
            outstanding=tuple(sorted(int(chunk) for chunk in outstanding)),
            running=tuple(sorted(_pairs(running))),
            suspects=tuple(sorted((n, v) for n, v in _pairs(suspects) if not n.startswith("why:"))),
            returned=tuple(n for n in range(8 * len(returned)) if returned[n // 8] >> (7 - n % 8) & 1),
            failures=tuple(sorted(Outcome.model_validate_json(line).index for line in failures)),
        )
        return ledger, [dump.encode("utf-8", "surrogateescape") for dump in dumps[:8]]

    def way_to(self, state: State) -> str:
        """Return the steps that lead to a state."""
        names = []
        while state.parent >= 0:
            names.append(state.step)
            state = self.states[state.parent]
        return " -> ".join(reversed(names)) or "the new job"

    # -- what can happen ------------------------------------------------------------------------------------------

    def _steps(self, number: int) -> Iterator[Step]:
        state = self.states[number]
        yield from self._steps_of_stewards(state)
        for who in range(len(WORKERS)):
            held = state.outside.held[who]
            yield from self._steps_of_idle(state, who) if held is None else self._steps_of_busy(state, who, held)
        if state.outside.commands:
            yield from self._steps_of_user(state)
        if state.outside.faults:
            yield from self._faults(state)
        if state.outside.failovers and state.before >= 0:
            yield "failover", True, self._failover

    def _steps_of_stewards(self, state: State) -> Iterator[Step]:
        ledger = state.ledger
        if ledger.status == "running" and (ledger.returned or int(ledger.field("cursor")) < CHUNKS):
            yield (
                "publish",
                False,
                lambda s: _send(s.outside, s.ledger.epoch, self.backlog.take(JOB, 1, epoch=s.ledger.epoch)),
            )
        if self._missing(state):
            yield "reconcile", False, self._reconcile
        if ledger.status == "stopping":
            yield "settle", False, self._settle(YEAR)
            if any(held is None or not held.known for held in state.outside.held):
                yield "settle after silence", False, self._settle(0)
        if ledger.status in ("closing", *ENDED):  # a bookkeeper that was slow repeats it
            yield "close", False, self._close
        if ledger.status == "paused":
            yield "resume", False, self._resume

    def _resume(self, state: State) -> Outside:
        self.connection.load_now()
        self.ledger.resume(JOB)
        return state.outside

    def _missing(self, state: State) -> list[int]:
        present = {*state.outside.queue} | {(h.epoch, h.chunk) for h in state.outside.held if h is not None and h.known}
        return [chunk for chunk in state.ledger.outstanding if (state.ledger.epoch, chunk) not in present]

    def _reconcile(self, state: State) -> Outside:
        missing = set(self.backlog.silent(JOB, 0)) & set(self._missing(state))
        return _send(state.outside, state.ledger.epoch, self.backlog.take_lost(JOB, sorted(missing), 0))

    def _settle(self, silence: float) -> Callable[[State], Outside]:
        def act(state: State) -> Outside:
            self.backlog.settle(JOB, silence)
            return state.outside

        return act

    def _close(self, state: State) -> Outside:
        epoch = state.ledger.epoch
        ended = self.backlog.close(JOB, epoch, 600)
        return replace(state.outside, closed=_more(state.outside.closed, epoch, ended))

    # -- workers

    def _steps_of_idle(self, state: State, who: int) -> Iterator[Step]:
        for epoch, chunk in sorted(set(state.outside.queue)):
            name = f"{WORKERS[who]} starts {epoch}.{chunk}"
            yield name, False, self._start(who, epoch, chunk, self.patient)
            holder = dict(state.ledger.running).get(str(chunk))
            if holder not in (None, WORKERS[who]) and not self._is_there(state, str(holder), epoch, chunk):
                yield f"{name} after silence", False, self._start(who, epoch, chunk, self.impatient)

    def _is_there(self, state: State, worker: str, epoch: int, chunk: int) -> bool:
        held = state.outside.held[WORKERS.index(worker)]
        return held is not None and (held.epoch, held.chunk) == (epoch, chunk) and held.known

    def _start(self, who: int, epoch: int, chunk: int, chunks: ChunkLedger) -> Callable[[State], Outside]:
        def act(state: State) -> Outside:
            outside = _without(state.outside, epoch, chunk)
            lease = chunks.start(_message(epoch, chunk), WORKERS[who])
            if lease.verdict is not Verdict.RUN:
                return outside
            first = chunk * SIZE
            todo = tuple(
                first + i for i, kind in enumerate(lease.outcomes) if kind is None and first + i not in lease.dead
            )
            if lease.dead:
                outside = self._record(outside, lease, [(index, OutcomeKind.DEAD) for index in lease.dead])
            return _holding(outside, who, Held(epoch, chunk, todo, lease.one_by_one))

        return act

    def _record(self, outside: Outside, lease: ChunkLease, found: list[tuple[int, OutcomeKind]]) -> Outside:
        outcomes = [Outcome(index=i, key=f"{i}", kind=kind, code="x" if kind in BAD else "") for i, kind in found]
        completed = lease.record(outcomes).completed
        return replace(outside, completed=_more(outside.completed, lease.message.epoch, completed))

    def _lease(self, who: int, held: Held) -> ChunkLease:
        return ChunkLease(self.ledger.connection, _message(held.epoch, held.chunk), WORKERS[who], Verdict.RUN)

    def _steps_of_busy(self, state: State, who: int, held: Held) -> Iterator[Step]:
        name = WORKERS[who]
        if held.todo and held.one_by_one and not held.announced:
            yield f"{name} announces {held.todo[0]}", False, self._begin(who, held)
        elif held.todo:
            kinds = [OutcomeKind.OK] + [OutcomeKind.FAILED] * (held.todo[0] in self.bounds.failing)
            for kind in kinds:
                yield f"{name} records {held.todo[0]} {kind.value}", False, self._finish(who, held, kind)
        yield f"{name} releases {held.epoch}.{held.chunk}", False, self._release(who, held)

    def _begin(self, who: int, held: Held) -> Callable[[State], Outside]:
        def act(state: State) -> Outside:
            if self._lease(who, held).begin(held.todo[0]):
                return _holding(state.outside, who, replace(held, announced=True))
            return _holding(state.outside, who, replace(held, todo=()))

        return act

    def _finish(self, who: int, held: Held, kind: OutcomeKind) -> Callable[[State], Outside]:
        def act(state: State) -> Outside:
            outside = self._record(state.outside, self._lease(who, held), [(held.todo[0], kind)])
            return _holding(outside, who, replace(held, todo=held.todo[1:], announced=False))

        return act

    def _release(self, who: int, held: Held) -> Callable[[State], Outside]:
        def act(state: State) -> Outside:
            again = self._lease(who, held).release(model="m", core_seconds=0, blameless=True)
            outside = _holding(state.outside, who, None)
            # A message that the broker took back is not returned by this worker: its acknowledgement finds nothing.
            return _send(outside, held.epoch, [held.chunk]) if again and held.known else outside

        return act

    # -- the user

    def _steps_of_user(self, state: State) -> Iterator[Step]:
        def command(call: Callable[[], object]) -> Callable[[State], Outside]:
            def act(state: State) -> Outside:
                self.connection.load_now()
                call()
                return replace(state.outside, commands=state.outside.commands - 1)

            return act

        status = state.ledger.status
        if status in LIVE:
            yield "cancel", True, command(lambda: self.ledger.cancel(JOB))
        if status == "running":
            yield "pause", True, command(lambda: self.ledger.pause(JOB))
        if status in ENDED and any(state.ledger.count(kind) for kind in (*BAD, OutcomeKind.CANCELLED)):
            yield "retry", True, command(lambda: self.ledger.reopen(JOB, failed=True, cancelled=True))
            yield "retry --failed", True, command(lambda: self.ledger.reopen(JOB, failed=True, cancelled=False))

    # -- faults

    def _faults(self, state: State) -> Iterator[Step]:
        def fault(act: Callable[[State], Outside]) -> Callable[[State], Outside]:
            return lambda state: replace(act(state), faults=state.outside.faults - 1)

        for epoch, chunk in sorted(set(state.outside.queue)):
            yield f"{epoch}.{chunk} is lost", True, fault(lambda s, e=epoch, c=chunk: _without(s.outside, e, c))
        for who, held in enumerate(state.outside.held):
            if held is None:
                continue
            name = WORKERS[who]
            yield f"{name} vanishes", True, fault(lambda s, w=who: _holding(s.outside, w, None))
            yield f"{name} is killed", True, fault(self._death(who, held))
            if held.known:
                yield f"the lease of {name} ends", True, fault(self._redelivery(who, held))

    def _death(self, who: int, held: Held) -> Callable[[State], Outside]:
        def act(state: State) -> Outside:
            self.patient.record_death(_message(held.epoch, held.chunk), WORKERS[who], "killed")
            outside = _holding(state.outside, who, None)
            return _send(outside, held.epoch, [held.chunk]) if held.known else outside

        return act

    def _redelivery(self, who: int, held: Held) -> Callable[[State], Outside]:
        """A worker is frozen or cut off; the broker delivers its message again, and the worker comes back."""
        return lambda state: _send(_holding(state.outside, who, replace(held, known=False)), held.epoch, [held.chunk])

    def _failover(self, state: State) -> Outside:
        """The last write is forgotten: keys and queue are those before it; workers keep what they hold."""
        before = self.states[state.before]
        self.connection.set_state(before.dumps)
        left = state.outside.failovers - 1
        held = tuple(
            now if now == then or now is None else replace(now, known=False)
            for now, then in zip(state.outside.held, before.outside.held, strict=True)
        )
        return replace(
            state.outside,
            held=(held[0], held[1]),
            queue=before.outside.queue,
            completed=before.outside.completed,
            closed=before.outside.closed,
            written_off=before.outside.written_off,
            failovers=left,
        )

    # -- what must hold -------------------------------------------------------------------------------------------

    def _check(self, old: State, new: State) -> None:
        ledger = new.ledger
        states = [outcome_codec.KINDS[state] for state in ledger.images]
        for what in _broken(ledger, states, new.outside):
            raise BrokenPromise(f"{what}\nafter: {self.way_to(new)}\n{ledger}\n{new.outside}")
        if new.step == "failover" or new.step.startswith("retry"):
            return
        for what in self._changed(old, new, states):
            raise BrokenPromise(f"{what}\nafter: {self.way_to(new)}\nbefore: {old.ledger}\nnow: {ledger}")

    def _changed(self, old: State, new: State, states: list[OutcomeKind | None]) -> Iterator[str]:
        before = [outcome_codec.KINDS[state] for state in old.ledger.images]
        logged = {index: kind for index, (was, kind) in enumerate(zip(before, states, strict=True)) if was != kind}
        for index, kind in logged.items():
            if before[index] in GOOD or (before[index] is not None and kind not in GOOD):
                yield f"image {index} had the outcome {before[index]} and has {kind}"
        if self._logged != {index: kind for index, kind in logged.items() if kind is not None}:
            yield f"the log has {self._logged}, and the outcomes that changed are {logged}"
        closes = new.step == "close" and old.ledger.status == "closing"
        if old.ledger.status in ("closing", *ENDED) and not closes and old.ledger != new.ledger:
            yield "a job that was over has changed"
        stale = _epoch_of(new.step, old.outside)
        if stale is not None and stale != old.ledger.epoch and old.ledger != new.ledger:
            yield f"a worker of epoch {stale} has changed a job of epoch {old.ledger.epoch}"

    def _check_that_all_can_end(self) -> None:
        """Whatever has happened, the job ends when nothing else happens: an end is reachable without a fault."""
        good = {n for n, state in enumerate(self.states) if state.ledger.status in ENDED}
        waiting = deque(good)
        while waiting:
            for number in self.states[waiting.popleft()].follow:
                if number not in good:
                    good.add(number)
                    waiting.append(number)
        for number, state in enumerate(self.states):
            if number not in good:
                raise BrokenPromise(f"the job never ends\nafter: {self.way_to(state)}\n{state.ledger}\n{state.outside}")


def _broken(ledger: Ledgers, states: list[OutcomeKind | None], outside: Outside) -> Iterator[str]:
    """Yield what does not hold in a state."""
    yield from _wrong_counts(ledger, states, outside)
    if max(*outside.completed, *outside.closed) > 1:
        yield "the job ended twice"
    over = ledger.status in ("closing", *ENDED)
    if over and (ledger.outstanding or ledger.running or ledger.returned or ledger.attempts or ledger.suspects):
        yield "a job that is over has keys left"
    if {int(chunk) for chunk, _ in ledger.running} - set(ledger.outstanding):
        yield "a chunk runs that is not outstanding"
    if set(ledger.returned) & set(ledger.outstanding):
        yield "a chunk that is published will be published again"
    if ledger.status in LIVE:
        for index, kind in enumerate(states):
            chunk = index // SIZE
            published = chunk < int(ledger.field("cursor")) and chunk not in (*ledger.returned, *ledger.outstanding)
            if kind is None and published and index not in outside.written_off:
                yield f"image {index} is lost: no process will publish its chunk"


def _wrong_counts(ledger: Ledgers, states: list[OutcomeKind | None], outside: Outside) -> Iterator[str]:
    for kind in OutcomeKind:
        written_off = len(outside.written_off) if kind is OutcomeKind.CANCELLED else 0
        if ledger.count(kind) != states.count(kind) + written_off:
            yield f"the counter of {kind.value} is {ledger.count(kind)}, {states.count(kind)} images are"
    over = ledger.status in ("closing", *ENDED)
    if ledger.done > TOTAL or (over and ledger.done != TOTAL):
        yield f"{ledger.done} of {TOTAL} images are done"
    if not over and ledger.status != "stopping" and ledger.done == TOTAL:
        yield "all images are done, and the job goes on"
    if set(ledger.failures) != {i for i, kind in enumerate(states) if kind in BAD}:
        yield "the list of failures differs from the failed images"
    if sum(int(number) for name, number in ledger.record if name.startswith("code:")) != sum(map(ledger.count, BAD)):
        yield "the counts by code differ from the number of failures"


def _written_off(old: State, step: str, new: Ledgers) -> tuple[int, ...]:
    empty = tuple(index for index, state in enumerate(new.images) if not state)
    if old.ledger.status == "stopping" and new.status == "closing":
        return empty
    if step == "retry":
        return ()
    if step == "retry --failed":
        return tuple(index for index in empty if index // SIZE not in new.returned)
    return old.outside.written_off


def _epoch_of(step: str, outside: Outside) -> int | None:
    """Return the epoch of the message with which a worker has done a step; None for the steps of others."""
    worker, _, rest = step.partition(" ")
    if worker not in WORKERS:
        return None
    if rest.startswith("starts "):
        return int(rest.split()[1].partition(".")[0])
    held = outside.held[WORKERS.index(worker)]
    return None if held is None else held.epoch


def _pairs(flat: list[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _key(ledger: Ledgers, outside: Outside) -> tuple[Any, ...]:
    held = tuple(
        () if h is None else (h.epoch, h.chunk, h.todo, h.one_by_one, h.announced, h.known) for h in outside.held
    )
    rest = (
        outside.queue,
        held,
        outside.faults,
        outside.commands,
        outside.failovers,
        outside.completed,
        outside.closed,
        outside.written_off,
    )
    return (*(getattr(ledger, name) for name in Ledgers.__dataclass_fields__), *rest)


def _exchanged(ledger: Ledgers, outside: Outside) -> tuple[Ledgers, Outside]:
    """Return the same state with the names of the two workers exchanged."""
    names = dict(zip(WORKERS, reversed(WORKERS), strict=True))
    running = tuple((chunk, names[worker]) for chunk, worker in ledger.running)
    return replace(ledger, running=running), replace(outside, held=outside.held[::-1])


def _message(epoch: int, chunk: int) -> ChunkMessage:
    first = chunk * SIZE
    keys = tuple(str(index) for index in range(first, first + SIZE))
    return ChunkMessage(job=JOB, epoch=epoch, chunk=chunk, start=first, keys=keys)


def _send(outside: Outside, epoch: int, chunks: list[int]) -> Outside:
    return replace(outside, queue=tuple(sorted([*outside.queue, *((epoch, chunk) for chunk in chunks)])))


def _without(outside: Outside, epoch: int, chunk: int) -> Outside:
    queue = list(outside.queue)
    queue.remove((epoch, chunk))
    return replace(outside, queue=tuple(queue))


def _holding(outside: Outside, who: int, held: Held | None) -> Outside:
    pair = list(outside.held)
    pair[who] = held
    return replace(outside, held=(pair[0], pair[1]))


def _more(counts: tuple[int, ...], epoch: int, really: bool) -> tuple[int, ...]:
    return tuple(count + (really and number == epoch) for number, count in enumerate(counts))
