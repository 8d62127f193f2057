"""Group commit: many verbs, one write, one fsync.

One thread per drive takes every operation that is waiting, reads all rows they need in one call, lets each
decide (in the order they came, each seeing what those before it changed), writes all changes as one batch
and flushes the log; only then does any of them answer.  So:

- Nothing is answered before it is durable.  A batch in which no operation asked for it (notes: rule 1 allows
  losing them) is written without the flush.
- Between write and flush the rows are visible to anyone who reads the table.  `_unsettled` names them; a
  reader that finds its row there (`settled`) *after* reading must not use what it read, and sends its question through
  this thread instead, behind the flush.  The set is filled before the write and emptied after the flush, so a
  reader that finds its row absent has read either the old state or a flushed one.
- A failed write or flush is final: every waiting operation fails, and the drive is set aside.  What had been
  written may or may not survive; nothing was acknowledged.

- A write that found no room left nothing in the table: its batch is refused, so is every change after it until the
  table is opened anew (`engine`), and what is read stays what it was.  Until then the log takes no flush either: whose
  answer promises that what came before is durable is refused, too, unless that is so already.
- Lazy operations (notes) wait a moment for a batch that is written anyway: a batch of their own is a dozen hand-overs
  between threads for something that nobody waits for.
- While the drive is stuck (`disk_threads`) nobody waits: who did is told DriveOffline, and what had not begun is
  dropped.  What had begun may still take effect when the disk comes back, as after any lost answer.

The thread also rechecks the drive's identity after each flush, before the answers (`port`: a commit is
acknowledged only by the drive its callers think it is).
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from holdfast_server.drives import keys
from holdfast_server.drives.disk_threads import Watch
from holdfast_server.drives.engine import Engine, EngineError
from holdfast_server.drives.faults import Fault, FaultKind, kind_of
from holdfast_server.drives.port import DriveError, DriveFaulty, DriveFull, DriveOffline

MAX_BATCH_OPERATIONS = 512
MAX_WAITING_OPERATIONS = 16_384
"""Beyond this the drive is hopelessly behind; refusing at once bounds memory and time."""

LAZY_SECONDS = 0.003
"""How long a lazy operation waits for others."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Transaction:
    """The table as one batch sees it: what is written, under what the batch has changed so far."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.changes: dict[bytes, bytes | None] = {}
        self.no_room: str | None = None
        """Set: changes are refused, with this reason."""
        self.all_flushed = True
        """Where there is no room: whether everything in the table is durable."""
        self.durable = False
        """Set by an operation whose answer promises that its changes, and all before them, are durable."""
        self.afterwards: list[Callable[[], None]] = []
        """Called once the batch is durable (as far as it has to be): what is kept in memory and must not run ahead of
        the table.  Not if it fails."""
        self.otherwise: list[Callable[[], None]] = []
        """Called instead where the operation, or all of the batch, is refused: what was done beside the table."""
        self._pending: dict[bytes, bytes | None] = {}
        self._read: dict[bytes, bytes | None] = {}

    def load(self, wanted: Iterable[bytes]) -> None:
        """Read rows that will be asked for, in one call."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._read]
        self._read.update(zip(missing, self.engine.get(missing), strict=True))

    def get(self, key: bytes) -> bytes | None:
        for layer in (self._pending, self.changes):
            if key in layer:
                return layer[key]
        if key not in self._read:
            self.load((key,))
        return self._read[key]

    def put(self, key: bytes, value: bytes) -> None:
        self._pending[key] = value

    def delete(self, key: bytes) -> None:
        self._pending[key] = None

    def run(self, apply: Callable[[Transaction], T]) -> T:
        """One operation, all or nothing: its changes count only if it returns."""
        self._pending = {}
        before, done, durable, self.durable = len(self.afterwards), len(self.otherwise), self.durable, False
        try:
            result = apply(self)
            if self.no_room is not None and (self._pending or (self.durable and not self.all_flushed)):
                raise DriveFull(self.no_room)
            self.changes.update(self._pending)
            durable = durable or self.durable
        except BaseException:
            del self.afterwards[before:]
            self.undo(done)
            raise
        finally:
            self._pending, self.durable = {}, durable
        return result

    def undo(self, kept: int = 0) -> None:
        """All but so many of the things that were done beside the table."""
        while len(self.otherwise) > kept:
            self.otherwise.pop()()


class Operation(Generic[T]):
    """A caller's work on its way through a batch: one verb (`One`) or some that came together (`Several`)."""

    __slots__ = ("error", "finish", "future", "result", "wanted")

    def __init__(self, future: asyncio.Future[T], wanted: Sequence[bytes], finish: Callable[[T], T] | None) -> None:
        self.future = future
        self.wanted = wanted
        self.finish = finish
        self.result: T | None = None
        self.error: Exception | None = None

    def work(self, transaction: Transaction) -> T:
        """Raises DriveError; what others of several changed before it stays: their answers are lost, as any may be."""
        raise NotImplementedError

    def run(self, transaction: Transaction) -> None:
        try:
            self.result = self.work(transaction)
        except DriveError as error:
            # Without its frames: they have this operation, and all that the batch has changed.
            self.error = error.with_traceback(None)

    def deliver(self) -> None:
        """On the loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class One(Operation[T]):
    __slots__ = ("apply",)

    def __init__(
        self,
        future: asyncio.Future[T],
        wanted: Sequence[bytes],
        apply: Callable[[Transaction], T],
        finish: Callable[[T], T] | None = None,
    ) -> None:
        super().__init__(future, wanted, finish)
        self.apply = apply

    def work(self, transaction: Transaction) -> T:
        return transaction.run(self.apply)


class Several(Operation[list[T | None]]):
    """Each is all or nothing by itself; None where there was no room for it."""

    __slots__ = ("applies",)

    def __init__(
        self,
        future: asyncio.Future[list[T | None]],
        wanted: Sequence[bytes],
        applies: Sequence[Callable[[Transaction], T]],
        finish: Callable[[list[T | None]], list[T | None]],
    ) -> None:
        super().__init__(future, wanted, finish)
        self.applies = applies

    def work(self, transaction: Transaction) -> list[T | None]:
        return [_run_or_none(transaction, apply) for apply in self.applies]


def _run_or_none(transaction: Transaction, apply: Callable[[Transaction], T]) -> T | None:
    try:
        return transaction.run(apply)
    except DriveFull:
        return None


class _Wake:
    """There is something lazy to be done."""


class GroupCommit:
    """The committing thread of one drive."""

    def __init__(
        self,
        engine: Engine,
        *,
        check_identity: Callable[[], None],
        on_fault: Callable[[Fault], None],
        name: str,
        watch: Watch,
        loop: asyncio.AbstractEventLoop,
        on_delivered: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_delivered` is called on the loop when the answers of a batch have been given."""
        self._engine = engine
        self._on_delivered = on_delivered
        self._watch = watch
        self._loop = loop
        self.no_room: str | None = None
        """The table met a full disk: changes are refused until it is opened anew.  Read from any thread."""
        self.reached = engine.reached
        """The number of the last change that is durable (`witness`)."""
        self.ended = asyncio.Event()
        """After `refuse`: what was taken is done.  On the loop."""
        self._stuck: str | None = None
        self._batch: list[Operation[Any]] = []
        self._check_identity = check_identity
        self._on_fault = on_fault
        self._queue: queue.SimpleQueue[Operation[Any] | _Wake | None] = queue.SimpleQueue()
        self._lazy: deque[Operation[Any]] = deque()
        self._fault: str | None = None
        self._closed = False
        self.writes = 0
        """Counts up before and after each batch is written, so that it is odd meanwhile; read from any thread."""
        self._visibility = threading.Lock()
        self._unsettled: set[bytes] = set()
        self._thread = threading.Thread(target=self._run, name=f"{name}-commit", daemon=True)
        self._thread.start()

    def submit(
        self, wanted: Sequence[bytes], apply: Callable[[Transaction], T], finish: Callable[[T], T] | None = None
    ) -> asyncio.Future[T]:
        """Run `apply` in the next batch, on the committing thread.  Never raises itself.

        `wanted` are rows it is sure to read.  `finish` runs on that thread once the batch is durable and may
        replace the result.  The future raises what `apply` raises, DriveFaulty if the drive fails; who cancels it
        leaves, the operation goes on.
        """
        return self._take(One(self._loop.create_future(), wanted, apply, finish))

    def submit_each(
        self,
        wanted: Sequence[bytes],
        applies: Sequence[Callable[[Transaction], T]],
        finish: Callable[[list[T | None]], list[T | None]],
    ) -> asyncio.Future[list[T | None]]:
        """As `submit` of each, in one piece; None where it raised DriveFull."""
        return self._take(Several(self._loop.create_future(), wanted, applies, finish))

    def _take(self, operation: Operation[T]) -> asyncio.Future[T]:
        refusal = self._refusal()
        if refusal is None:
            self._queue.put(operation)
        else:
            operation.future.set_exception(refusal)
        return operation.future

    def submit_lazily(self, wanted: Sequence[bytes], apply: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """As `submit`, with the next batch that is under way, or after `LAZY_SECONDS`; on the loop."""
        operation = One(self._loop.create_future(), wanted, apply)
        refusal = self._refusal()
        if refusal is not None:
            operation.future.set_exception(refusal)
            return operation.future
        self._lazy.append(operation)
        if len(self._lazy) == 1:
            self._loop.call_later(LAZY_SECONDS, self._wake)
        elif len(self._lazy) == MAX_BATCH_OPERATIONS:
            self._wake()
        return operation.future

    def _wake(self) -> None:
        if self._lazy:
            self._queue.put(_Wake())

    def _refusal(self) -> DriveError | None:
        if self._fault is not None:
            return DriveFaulty(self._fault)
        if self._stuck is not None:
            return DriveOffline(self._stuck)
        if self._closed:
            return DriveError("the drive is closed")
        if self._queue.qsize() + len(self._lazy) >= MAX_WAITING_OPERATIONS:
            return DriveError(f"{MAX_WAITING_OPERATIONS} operations are waiting for this drive")
        return None

    def settled(self, rows: Iterable[bytes]) -> bool:
        """Whether none of these table keys is in a batch that is written but not flushed.  From any thread."""
        with self._visibility:
            return self._unsettled.isdisjoint(rows)

    def if_settled(self, take: Callable[[], T]) -> T | None:
        """Run `take` (a snapshot) if everything in the table is durable at that moment; else None."""
        with self._visibility:
            return None if self._unsettled else take()

    def refuse(self) -> None:
        """Take no more operations.  On the loop that submits them, so that none slips in behind; idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)

    def stick(self, reason: str) -> None:
        """On the loop.  Nobody waits any longer, and nothing more is begun, until `resume`; repeat while it lasts."""
        self._stuck = reason
        waiting = [*self._batch, *self._take_lazy()]
        while True:
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                break
            if operation is None:
                self._queue.put(None)
                break
            if isinstance(operation, Operation):
                waiting.append(operation)
        for operation in waiting:
            if not operation.future.done():
                operation.future.set_exception(DriveOffline(reason))

    def resume(self) -> None:
        self._stuck = None

    def _run(self) -> None:
        try:
            self._work()
        finally:
            try:
                self._loop.call_soon_threadsafe(self.ended.set)
            except RuntimeError:
                log.debug("the loop was closed before the drive")

    def _work(self) -> None:
        while True:
            following = self._queue.get()
            batch: list[Operation[Any]] = []
            while following is not None:
                if isinstance(following, Operation):
                    batch.append(following)
                    if len(batch) >= MAX_BATCH_OPERATIONS:
                        break
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
            last = following is None
            batch += self._take_lazy()
            if batch:
                self._watched(batch)
            if last:
                return
            # Let go of results and futures while waiting for the next batch.
            del batch, following

    def _watched(self, batch: list[Operation[Any]]) -> None:
        self._batch = batch
        began = self._watch.begin("a batch of commits")
        try:
            self._process(batch)
        finally:
            self._watch.end(began)
            self._batch = []

    def _take_lazy(self) -> list[Operation[Any]]:
        """From any thread."""
        taken = []
        while True:
            try:
                taken.append(self._lazy.popleft())
            except IndexError:
                return taken

    def _process(self, batch: list[Operation[Any]]) -> None:
        try:
            if self._fault is not None:
                raise DriveFaulty(self._fault)
            self._commit(batch)
        except Exception as error:
            # Whatever it was, what is in the table and what is durable may now differ: no further answers.
            if self._fault is None:
                self._fault = str(error) if isinstance(error, EngineError | DriveError) else repr(error)
                self._on_fault(Fault(kind_of(error), self._fault))
            for operation in batch:
                operation.error = DriveFaulty(self._fault)
                operation.error.__cause__ = error
        self._deliver(batch)

    def _deliver(self, batch: list[Operation[Any]]) -> None:
        """Wake the waiters: one call into the loop, however many operations there are."""
        try:
            self._loop.call_soon_threadsafe(self._deliver_on_loop, batch)
        except RuntimeError:
            log.debug("the loop was closed: nobody is waiting any more")

    def _deliver_on_loop(self, batch: list[Operation[Any]]) -> None:
        for operation in batch:
            operation.deliver()
        self._on_delivered()

    def _commit(self, batch: list[Operation[Any]]) -> None:
        transaction = Transaction(self._engine)
        transaction.no_room = self.no_room
        transaction.all_flushed = self.no_room is None or self._engine.reached <= self.reached
        transaction.load(key for operation in batch for key in operation.wanted)
        for operation in batch:
            operation.run(transaction)
        if transaction.changes:
            with self._visibility:
                self._unsettled = {key for key in transaction.changes if key[:1] in _VISIBLE}
            self.writes += 1
            try:
                self._engine.write(transaction.changes.items())
            except EngineError as error:
                if error.kind is not FaultKind.NO_ROOM:
                    raise
                transaction.undo()
                self._met_no_room(batch, error)
                return
            finally:
                self.writes += 1
        if transaction.durable and self.no_room is None:
            self._engine.flush()
            self.reached = self._engine.reached
        self._check_identity()
        for call in transaction.afterwards:
            call()
        with self._visibility:
            self._unsettled = set()
        for operation in batch:
            if operation.finish is not None and operation.error is None:
                operation.result = operation.finish(operation.result)

    def _met_no_room(self, batch: list[Operation[Any]], error: EngineError) -> None:
        """Nothing of the batch is in the table, so nobody need wait for a flush to read it."""
        self.no_room = f"no space left for the table: {error}"
        log.error("%s", self.no_room)
        with self._visibility:
            self._unsettled = set()
        for operation in batch:
            operation.error = DriveFull(self.no_room)
            operation.error.__cause__ = error


_VISIBLE = frozenset((keys.REGISTER, keys.INLINE, keys.SETTLED))
"""Kinds of row that readers outside the committing thread look at."""
