"""`Settings`: how this deployment runs. Each entry point builds them once from the environment (DFKD_...)."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dfkd_core.extras import require
from dfkd_core.sandbox.detect import SandboxChoice
from dfkd_core.spec.overrides import BadOption
from jobs.devices import DeviceClass, class_of
from jobs.quota_limits import Quotas

RATE = r"^([1-9][0-9]{0,8}/([1-9][0-9]{0,4} )?(second|minute|hour|day))?$"
BUCKET_URL = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?$"

DATABASES = frozenset({"sqlite", "postgresql", "postgresql+psycopg"})
"""Schemes of `database_url`."""


class Settings(BaseSettings):
    """All deployment settings. What a job computes is not set here but in `DistillSpec`."""

    model_config = SettingsConfigDict(env_prefix="DFKD_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("dfkd-data"), description="Directory of all files on the local disk.")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the database; if absent, SQLite below data_dir."
    )
    broker_url: str | None = Field(
        None,
        description="Redis URL of the broker, with a password if it is on another machine; if absent, workers poll.",
    )
    artifacts_url: str | None = Field(
        None,
        pattern=BUCKET_URL,
        description="Bucket for files, s3://bucket/prefix; if absent, files are below data_dir.",
    )
    artifacts_endpoint_url: str | None = Field(
        None, pattern=r"^https?://", description="Address of an S3-compatible store; if absent, that of AWS."
    )
    max_upload_bytes: int = Field(2 * 1024**3, gt=0, description="Largest teacher file that is accepted.")
    max_spec_bytes: int = Field(64 * 1024, gt=0, description="Largest spec that is accepted.")
    upload_idle_seconds: float = Field(
        30.0, gt=0, description="An upload is ended when less than 1 KiB arrives in this time."
    )
    request_lease_seconds: float = Field(
        20.0, gt=0, description="How long the Idempotency-Key of a request stays reserved after its process has died."
    )
    inspection_timeout_seconds: float = Field(30.0, gt=0, description="Time limit for the inspection of a teacher.")
    inspection_memory_bytes: int = Field(2 * 1024**3, gt=0, description="Address-space limit of the inspection.")
    max_teacher_macs: int = Field(
        10**12, gt=0, description="Largest number of multiply-adds of a teacher for one image."
    )
    max_activation_bytes: int = Field(
        64 * 1024**3,
        gt=0,
        description="Largest size of all that a teacher computes for one batch, in bytes of float32.",
    )
    activation_bytes: int = Field(
        1024**3,
        gt=0,
        description="Memory for the values that the networks of a job compute at a time. It sets the micro-batches and "
        "chunks of new jobs, and with the weights most of a runner's memory.",
    )
    sandbox: SandboxChoice = Field(
        "auto",
        description="Sandbox of the processes that read teachers: bubblewrap, namespaces, auto (the first of the two "
        "that works here), off (limits only).",
    )

    lease_seconds: float = Field(
        60.0, gt=0, description="Another worker may take a claimed job when its lease is this old."
    )
    heartbeat_seconds: float = Field(15.0, gt=0, description="Time between two renewals of a lease.")
    sweep_seconds: float = Field(5.0, gt=0, description="Time between two searches for expired leases and queued jobs.")
    max_attempts: int = Field(10, ge=1, description="Charged attempts after which a job fails.")
    max_crashes: int = Field(
        3, ge=1, description="Crashes without a newer checkpoint after which a job fails as poison."
    )
    backoff_seconds: float = Field(
        5.0, ge=0, description="Delay before a crashed job is tried again; it doubles with every crash."
    )
    stall_seconds: float = Field(600.0, gt=0, description="A runner without a step for this long is stopped.")
    stop_grace_seconds: float = Field(10.0, gt=0, description="Time between SIGTERM and SIGKILL of a runner.")
    max_running_seconds: float = Field(30 * 86400.0, gt=0, description="Running time after which a job fails.")
    checkpoint_seconds: float = Field(30.0, gt=0, description="Time between two checkpoints of a running job.")

    quota_queued_jobs: int = Field(0, ge=0, description="Limit of a tenant's queued and paused jobs; 0: no limit.")
    quota_running_jobs: int = Field(0, ge=0, description="Limit of a tenant's running jobs; 0: no limit.")
    quota_stored_bytes: int = Field(
        0,
        ge=0,
        description="Limit of the bytes of a tenant's teachers, published files and checkpoints of finished jobs; "
        "0: no limit.",
    )
    quota_device_seconds_per_day: int = Field(
        0, ge=0, description="Limit of the running seconds of all of a tenant's jobs in a day (UTC); 0: no limit."
    )
    rate_limit: str = Field(
        "", pattern=RATE, description="Limit of a tenant's requests, such as `600/minute`; empty: no limit."
    )
    rate_limit_posts: str = Field(
        "",
        pattern=RATE,
        description="Separate limit of a tenant's POST requests, such as `60/minute`; empty: they count as requests.",
    )
    rate_limit_url: str | None = Field(
        None,
        pattern=r"^redis(s|\+socket)?://",
        description="Redis URL where requests are counted; if absent, each process counts by itself.",
    )
    audit_days: float = Field(365.0, gt=0, description="Days for which lines of the audit log are kept.")

    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log's lines: text for people, or JSON."
    )
    auth: Literal["auto", "required", "off"] = Field(
        "auto",
        description="When requests need an API key. `required`: always. `off`: never. `auto`: as soon as there is a "
        "key, and always on an address that other machines can reach.",
    )

    worker_slots: int = Field(1, ge=1, description="Jobs that one worker process runs at once; 1 on a GPU.")
    worker_threads: int = Field(
        2, ge=1, description="Intra-op threads of a runner; equal jobs give equal bytes only with equal threads."
    )
    worker_device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="Device of the runners: cpu, cuda or cuda:N; it decides which jobs they take.",
    )
    runner_memory_bytes: int | None = Field(
        None, gt=0, description="Limit of the data of a runner in host memory; if absent, that of host or container."
    )
    worker_metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of a worker's metrics; if absent, there is none."
    )
    worker_metrics_host: str = Field(
        "127.0.0.1", description="Address on which a worker listens for requests for its metrics."
    )
    retention_days: float = Field(
        30.0,
        gt=0,
        description="Days for which files of finished jobs and unused teachers are kept; inf: until they are deleted.",
    )
    checkpoint_retention_days: float = Field(
        7.0,
        gt=0,
        description="Days for which the last checkpoint of a finished job is kept, so that another job can continue "
        "it; never longer than its files.",
    )

    @field_validator("worker_device")
    @classmethod
    def _one_runner_for_a_gpu(cls, device: str, info: ValidationInfo) -> str:
        if class_of(device) is DeviceClass.GPU and info.data.get("worker_slots", 1) > 1:
            raise ValueError(
                "a GPU serves one runner at a time, so DFKD_WORKER_SLOTS must be 1; start one worker for each GPU "
                "(cuda:0, cuda:1, ...)"
            )
        return device

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in DATABASES:
            raise ValueError(
                "the URL begins with sqlite: or postgresql+psycopg:, such as postgresql+psycopg://user@host/name"
            )
        return url

    @field_validator("broker_url", "rate_limit_url")
    @classmethod
    def _remote_redis_needs_password(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme in {"redis", "rediss"} and not parts.password and not _is_this_machine(parts.hostname):
            raise ValueError(
                "a Redis that is reached over a network can be emptied, stopped and rung by whoever reaches it; give "
                "it a password (requirepass) and write that into the URL: redis://:PASSWORD@HOST:6379/0"
            )
        return url

    @property
    def quotas(self) -> Quotas:
        """The limits of tenants that have no limits of their own."""
        return Quotas(
            queued_jobs=self.quota_queued_jobs,
            running_jobs=self.quota_running_jobs,
            stored_bytes=self.quota_stored_bytes,
            device_seconds_per_day=self.quota_device_seconds_per_day,
        )

    @property
    def retention_seconds(self) -> float:
        """How long files of finished jobs and unused teachers are kept."""
        return self.retention_days * 86400.0

    @property
    def checkpoint_retention_seconds(self) -> float:
        """How long the last checkpoint of a finished job is kept, unless its files expire earlier."""
        return self.checkpoint_retention_days * 86400.0

    @property
    def worker_device_class(self) -> DeviceClass:
        """The device class of the worker, which decides which jobs it takes."""
        return class_of(self.worker_device)

    @property
    def resolved_database_url(self) -> str:
        """The database URL, or SQLite below `data_dir`."""
        return self.database_url or f"sqlite:///{self.sqlite_path}"

    @property
    def sqlite_path(self) -> Path:
        """The path of the SQLite file that is used if there is no database URL."""
        return self.data_dir.resolve() / "ledger.sqlite3"


def _is_this_machine(host: str | None) -> bool:
    """True if the URL leads to this machine. A Redis URL without a host leads to localhost."""
    if host is None or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def settings_from_environment(data_dir: Path | None = None) -> Settings:
    """Return the settings of a command.

    Raises:
        BadOption: an environment variable is invalid; the message names it.
        MissingExtra: the database or the object store needs libraries that are not installed.
    """
    try:
        settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    except ValidationError as error:
        wrong = [f"DFKD_{str(entry['loc'][0]).upper()}: {entry['msg']}" for entry in error.errors()]
        raise BadOption("; ".join(wrong)) from None
    if settings.resolved_database_url.startswith("postgresql"):
        require("postgres")
    if settings.artifacts_url is not None:
        require("s3")
    return settings
