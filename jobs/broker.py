"""The broker. A message holds a job id and asks workers to look for jobs in the database, so lost, late and repeated
messages change nothing. No other module of this package knows the broker.
"""

import logging
from typing import Any

from celery import Celery
from celery.exceptions import CeleryError
from kombu.connection import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from jobs.devices import DeviceClass
from jobs.metrics import DOORBELL_FAILURES
from jobs.settings import Settings

log = logging.getLogger(__name__)

QUEUE = "dfkd"
TASK = "dfkd.ring"

ENOUGH = 1000
"""Messages in a queue above which none are added: all ask for the same, and perhaps no worker is listening."""

CONSUMER_TIMEOUT_SECONDS = 5.0
PRODUCER_TIMEOUT_SECONDS = 1.0

BROKER_ERRORS = (OSError, RedisError, KombuError, CeleryError)

_TRANSPORT: dict[str, Any] = {
    "visibility_timeout": 3600,  # irrelevant: messages are acknowledged when they arrive
    "health_check_interval": 10,
    "socket_keepalive": True,
    "socket_connect_timeout": PRODUCER_TIMEOUT_SECONDS,
}


def make_celery(settings: Settings) -> Celery:
    """Return the Celery application of service and worker; it opens no connection."""
    celery = Celery("dfkd", broker=settings.broker_url, set_as_current=False)
    celery.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=PRODUCER_TIMEOUT_SECONDS,
        broker_transport_options={**_TRANSPORT, "socket_timeout": CONSUMER_TIMEOUT_SECONDS},
        task_default_queue=QUEUE,
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        enable_utc=True,
    )
    return celery


def queue_of(device_class: DeviceClass) -> str:
    """Return the queue of messages about jobs of a device class.

    Every worker also reads the queue of the class `any`.
    """
    return QUEUE if device_class is DeviceClass.ANY else f"{QUEUE}.{device_class}"


def notify(celery: Celery, job_id: str, device_class: DeviceClass = DeviceClass.ANY) -> bool:
    """Tell workers that there is a job. If the broker does not answer within about a second, log this, return False.

    A failure of the broker raises nothing: the job is already in the database, and the sweep notifies workers again.
    """
    if not celery.conf.broker_url:
        return False
    try:
        with _connection(celery) as connection:
            queue = queue_of(device_class)
            if connection.default_channel.client.llen(queue) < ENOUGH:
                celery.send_task(
                    TASK, args=[job_id], queue=queue, connection=connection, retry=False, ignore_result=True
                )
    except BROKER_ERRORS as error:
        DOORBELL_FAILURES.inc()
        log.warning(
            "the broker did not take the notification",
            extra={"job_id": job_id, "reason": f"{type(error).__name__}: {error}"},
        )
        return False
    return True


def broker_answers(celery: Celery) -> bool:
    """True if the broker answers within about a second; False if none is configured."""
    if not celery.conf.broker_url:
        return False
    try:
        with _connection(celery) as connection:
            connection.default_channel.client.ping()
    except BROKER_ERRORS as error:
        log.warning("the broker does not answer", extra={"reason": f"{type(error).__name__}: {error}"})
        return False
    return True


def _connection(celery: Celery) -> Connection:
    """Return a new connection that gives up after PRODUCER_TIMEOUT_SECONDS and does not retry."""
    options = {**_TRANSPORT, "socket_timeout": PRODUCER_TIMEOUT_SECONDS, "max_retries": 0}
    connection: Connection = celery.connection_for_write(transport_options=options)
    return connection
