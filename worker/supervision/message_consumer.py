"""Takes a runner's messages into the ledger and the artifact store. Both may block, so a thread of its own does it."""

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
from worker.supervision.progress_writer import ProgressWriter
from worker.supervision.safe_open import UnsafeFile, open_in_workspace

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1


class MessageConsumer:
    """Consumes messages inside its `with` block. Leaving the block waits until every message has been consumed."""

    def __init__(
        self, reader: MessageReader, workspace: Path, *, progress: ProgressWriter, checkpoints: Checkpoints
    ) -> None:
        self.last_message: Message | None = None  # done, stopped or error; messages after it are ignored
        self.fenced_out = False
        self.last_progress_at = time.monotonic()
        self._reader = reader
        self._workspace = workspace
        self._progress = progress
        self._checkpoints = checkpoints
        self._seen: tuple[object, ...] = ()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="message-consumer")
        self._broken = threading.Event()

    @property
    def broken(self) -> bool:
        """Whether this host failed to consume a message. Leaving the block will raise the error."""
        return self._broken.is_set()

    def __enter__(self) -> Self:
        self._consumed = self._pool.submit(copy_context().run, self._consume_all)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        if self._reader.num_refused:
            log.warning("runner messages refused", extra={"count": self._reader.num_refused})
        if error is None:
            self._consumed.result()

    def _consume_all(self) -> None:
        try:
            while not self._reader.exhausted:
                with suppress(queue.Empty):
                    self._consume(self._reader.messages.get(timeout=_TICK_SECONDS))
                self._write(self._progress.write_if_due)
            self._write(self._progress.write)
        except BaseException:
            self._broken.set()
            raise

    def _consume(self, message: Message) -> None:
        if self.last_message is not None:
            return
        if not isinstance(message, UpdateMessage):
            self.last_message = message
            return
        progress = (message.kind, message.stage, message.step, message.fraction, message.beats)
        if progress != self._seen:
            self._seen, self.last_progress_at = progress, time.monotonic()
        if message.kind == "checkpoint":
            self._keep_checkpoint(Path(str(message.data.get("path"))), step=message.step)
        self._progress.add(message)

    def _keep_checkpoint(self, path: Path, *, step: int) -> None:
        try:
            with open_in_workspace(self._workspace, path) as file:
                self._write(lambda: self._checkpoints.keep(file, step=step))
        except FileNotFoundError:
            log.debug("checkpoint was replaced before it was taken")
        except UnsafeFile as error:
            log.warning("checkpoint refused", extra={"reason": str(error)[:200]})

    def _write(self, write: Callable[[], bool]) -> None:
        """Make one fenced write. False from it ends the attempt; an error of the ledger or the disk does not."""
        try:
            if not write():
                self.fenced_out = True
        except LedgerError as error:
            log.warning("ledger write failed", extra={"reason": str(error)})
