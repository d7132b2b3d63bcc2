"""The only task: answer the bell. A bell says "look at the table" and nothing else; which job rang does not matter."""

from collections.abc import Callable

from celery import Celery

from jobs.broker import TASK


def answer_with(celery: Celery, look: Callable[[], None]) -> None:
    """Register the task; `look` must return at once: it wakes a slot, which claims and supervises."""

    @celery.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def ring(_job_id: str) -> None:
        look()
