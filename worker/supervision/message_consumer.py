"""Takes a runner's messages into the ledger and the artifact store, in a thread of its own: these may block."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.errors import LedgerError
from worker.runner.protocol import Message, MessageReader, UpdateMessage
from worker.supervision.checkpoints import Checkpoints
from worker.supervision.progress_writer import Journal
from worker.supervision.safe_open import NotOwnFile, open_produced

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1


class Listener:
    """Listens from entering the `with` block; leaving it waits until everything that was said has been taken."""

    def __init__(self, reader: MessageReader, workspace: Path, *, journal: Journal, checkpoints: Checkpoints) -> None:
        self.last: Message | None = None  # done, stopped or error; what comes after it is not taken
        self.fenced_out = False
        self.moved_at = time.monotonic()  # when the runner last said something new
        self._reader = reader
        self._workspace = workspace
        self._journal = journal
        self._checkpoints = checkpoints
        self._seen: tuple[object, ...] = ()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="listener")
        self._broken = threading.Event()

    @property
    def broken(self) -> bool:
        """Whether this host failed at taking messages: leaving the block will raise what happened."""
        return self._broken.is_set()

    def __enter__(self) -> Self:
        self._taking = self._pool.submit(copy_context().run, self._take_all)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        if self._reader.num_refused:
            log.warning("runner messages refused", extra={"count": self._reader.num_refused})
        if error is None:
            self._taking.result()

    def _take_all(self) -> None:
        try:
            while not self._reader.exhausted:
                with suppress(queue.Empty):
                    self._take(self._reader.messages.get(timeout=_TICK_SECONDS))
                self._guarded(self._journal.write_if_due)
            self._guarded(self._journal.write)
        except BaseException:
            self._broken.set()
            raise

    def _take(self, message: Message) -> None:
        if self.last is not None:
            return
        if not isinstance(message, UpdateMessage):
            self.last = message
            return
        signs_of_life = (message.kind, message.stage, message.step, message.fraction)
        if signs_of_life != self._seen:
            self._seen, self.moved_at = signs_of_life, time.monotonic()
        if message.kind == "checkpoint":
            self._keep_checkpoint(Path(str(message.data.get("path"))), step=message.step)
        self._journal.take(message)

    def _keep_checkpoint(self, path: Path, *, step: int) -> None:
        try:
            with open_produced(self._workspace, path) as file:
                self._guarded(lambda: self._checkpoints.keep(file, step=step))
        except FileNotFoundError:
            log.debug("checkpoint was replaced before it was taken")
        except NotOwnFile as error:
            log.warning("checkpoint refused", extra={"reason": str(error)[:200]})

    def _guarded(self, write: Callable[[], bool]) -> None:
        """A fenced write in mid-run: False ends the attempt, trouble with the ledger or the disk does not."""
        try:
            if not write():
                self.fenced_out = True
        except LedgerError as error:
            log.warning("ledger write failed", extra={"reason": str(error)})
