"""A batch that was submitted: waiting, how its tasks stand, giving up, and what is known of the memory afterwards."""

from __future__ import annotations

import ctypes
import enum
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._arrays import whole
from ._errors import DeadlineError, EngineClosedError, ErrorClass, TransferEngineError, from_info
from ._lib import BATCH_BUSY, COMPLETED, FAILED, TIMEOUT, BatchStatus, ErrorInfo, TaskReport, TaskStatus, lib
from ._time import LONGEST_MS, seconds

if TYPE_CHECKING:
    from ._engine import Engine

# How long the main thread sleeps in C before Python looks for signals. Chosen: Ctrl-C feels immediate, ten wake-ups a second cost nothing.
_SIGNALS_MS = 100
# The pause between two questions whether a remote range is quiet; the answer needs a message to the peer and back.
_DRAIN_PAUSES_S = (0.0005, 0.02)
_MAIN = threading.main_thread()


def in_main_thread() -> bool:
    """Whether this thread runs the handlers of signals, which must not wait for a transfer."""
    return threading.get_ident() == _MAIN.ident


class Drained(enum.IntEnum):
    """Whether memory of a task may be used for something else."""

    NO = 0
    YES = 1
    UNKNOWN = 2


class Status(NamedTuple):
    """How the tasks of a batch stand."""

    tasks: int
    completed: int
    failed: int
    transferred_bytes: int

    @property
    def done(self) -> bool:
        """No task runs any more."""
        return self.completed + self.failed == self.tasks


class Report(NamedTuple):
    """A task in full. Times are microseconds from the submit; -1: not reached, or not known."""

    status: str
    code: int
    error_class: int
    retryable: bool
    os_errno: int
    attempts: int
    transferred_bytes: int
    submitted_ns: int
    connected_us: int
    posted_us: int
    completed_us: int
    peer: str
    nic: str
    rail: str
    text: str


class Batch:
    """Tasks that were submitted together. Close it, or use it as a context manager; closing gives up what still runs.

    A batch that is dropped without being closed runs to its end, and its memory stays referenced until then.
    """

    def __init__(self, engine: Engine, batch_id: int, count: int, keep: Any, what: str) -> None:
        self._engine, self.id, self.count, self._keep, self._what = engine, batch_id, count, keep, what

    def _handle(self) -> int:
        if self.id == 0:
            raise EngineClosedError("the batch is closed")
        return self._engine._handle_or_raise()

    def status(self) -> Status:
        """How the tasks stand; moves data along."""
        summary = BatchStatus()
        if lib.mte_batch_status(self._handle(), self.id, ctypes.addressof(summary), None, 0) != 0:
            self._engine._raise_last("the status of a batch")
        return Status(summary.tasks, summary.completed, summary.failed, summary.transferred_bytes)

    def task_statuses(self) -> list[tuple[str, int]]:
        """("running", "completed" or "failed", bytes at their destination) of each task."""
        tasks = (TaskStatus * max(self.count, 1))()
        summary = BatchStatus()
        if lib.mte_batch_status(self._handle(), self.id, ctypes.addressof(summary), ctypes.addressof(tasks), self.count) != 0:
            self._engine._raise_last("the status of a batch")
        return [(_word(task.status), task.transferred_bytes) for task in tasks[: self.count]]

    @property
    def done(self) -> bool:
        """Whether every task is completed or failed."""
        return self.status().done

    def wait(self, timeout: float | None = None) -> None:
        """Sleeps until every task has ended; raises the exception of the first one that failed.

        `timeout` in seconds; None or infinite: the tasks' own deadlines. DeadlineError when it passes first: the tasks go on.
        """
        if not self.ended(timeout):
            raise DeadlineError(f"{self._what} still runs after {timeout} s", BATCH_BUSY, ErrorClass.TIMEOUT, True)
        error = self.first_error()
        if error is not None:
            raise error

    def ended(self, timeout: float | None = None) -> bool:
        """As wait, without exceptions for failed tasks: False when the time has passed first."""
        limit, handle = seconds(timeout), self._handle()
        until = None if limit is None else time.monotonic() + limit
        while True:
            rest = -1 if until is None else max(0, int(min((until - time.monotonic()) * 1000, float(LONGEST_MS))) + 1)
            sliced = rest if not in_main_thread() else (_SIGNALS_MS if rest < 0 else min(rest, _SIGNALS_MS))
            result = lib.mte_wait_batch(handle, self.id, sliced)
            if result == 0:
                return True
            if result != BATCH_BUSY:
                self._engine._raise_last("waiting for a batch")
            if until is not None and time.monotonic() >= until:
                return False

    def first_error(self) -> TransferEngineError | None:
        """The exception of the first failed task."""
        if self.status().failed == 0:
            return None
        return next((error for _, error in self.errors(1)), None)

    def errors(self, limit: int | None = None) -> list[tuple[int, TransferEngineError]]:
        """(index, exception) of the failed tasks, at most `limit`."""
        most = None if limit is None else whole(limit, "limit")
        found: list[tuple[int, TransferEngineError]] = []
        for index, (state, _) in enumerate(self.task_statuses()):
            if state == "failed" and (most is None or len(found) < most):
                info = ErrorInfo()
                if lib.mte_task_error(self._handle(), self.id, index, ctypes.addressof(info)) != 0:
                    self._engine._raise_last("the error of a task")
                found.append((index, from_info(info, self._what, index)))
        return found

    def report(self, task: int = 0) -> Report:
        """All that is known of a task, running or not."""
        raw = TaskReport()
        if lib.mte_task_report(self._handle(), self.id, _index(task), ctypes.addressof(raw)) != 0:
            self._engine._raise_last("the report of a task")
        values = {name: getattr(raw, name) for name, *_ in TaskReport._fields_}
        texts = {name: values[name].decode(errors="replace") for name in ("peer", "nic", "rail", "text")}
        return Report(**{**values, **texts, "status": _word(raw.status), "retryable": bool(raw.retryable)})

    def cancel(self) -> None:
        """Gives up every task that still runs. Does not wait; the local memory is free once wait or ended returns."""
        if lib.mte_cancel_batch(self._handle(), self.id) != 0:
            self._engine._raise_last("canceling a batch")

    def drained(self, task: int | None = None) -> Drained:
        """Whether local and remote memory of one task, or of all, is quiet. UNKNOWN is for good: nobody can tell."""
        if task is not None:
            answer = ctypes.c_int()
            if lib.mte_task_drained(self._handle(), self.id, _index(task), answer) != 0:
                self._engine._raise_last("whether a task is drained")
            return Drained(answer.value)
        # Completed tasks are asked too: one that was sent twice to a peer that cannot be asked is UNKNOWN.
        answers = {self.drained(index) for index in range(self.count)}
        return next((answer for answer in (Drained.NO, Drained.UNKNOWN) if answer in answers), Drained.YES)

    def drain(self, timeout: float | None = None) -> Drained:
        """Waits until every task has ended and the remote memory is known to be quiet; UNKNOWN: that cannot be known.

        Drained.NO when `timeout` passes first. A peer that does not answer is given up after a minute.
        """
        limit = seconds(timeout)
        until = None if limit is None else time.monotonic() + limit
        self.ended(limit)
        pause, longest = _DRAIN_PAUSES_S
        while True:
            answer = self.drained()
            if answer is not Drained.NO or (until is not None and time.monotonic() >= until):
                return answer
            time.sleep(pause if until is None else max(0.0, min(pause, until - time.monotonic())))
            pause = min(pause * 2, longest)

    def fileno(self) -> int:
        """A descriptor that is readable while every task has ended, for select, poll and event loops. Do not read or close it."""
        descriptor = ctypes.c_int()
        if lib.mte_batch_fd(self._handle(), self.id, descriptor) != 0:
            self._engine._raise_last("the descriptor of a batch")
        return descriptor.value

    def close(self) -> None:
        """Gives up what still runs, waits for that, which is short, and frees the batch. Harmless the second time."""
        handle, batch_id = self._engine._handle, self.id
        if handle is not None and batch_id != 0 and lib.freeBatchID(handle, batch_id) == BATCH_BUSY:
            lib.mte_cancel_batch(handle, batch_id)
            lib.mte_wait_batch(handle, batch_id, -1)
            lib.freeBatchID(handle, batch_id)
        self._engine._life.wait()
        self.id, self._keep = 0, None

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        handle = self._engine._handle
        if handle is not None and self.id != 0 and lib.freeBatchID(handle, self.id) == BATCH_BUSY:
            self._engine._dropped.append((self.id, self._keep))


def _index(task: int) -> int:
    """ctypes would wrap a negative index around. TypeError for what is no int."""
    found = whole(task, "task")
    if not 0 <= found < 2**63:
        raise IndexError(f"task {found}")
    return found


def _word(status: int) -> str:
    return {COMPLETED: "completed", FAILED: "failed", TIMEOUT: "failed"}.get(status, "running")
