"""The tables of the ledger, which are the same on SQLite and PostgreSQL.

JSON values are stored as text, because no query searches inside them. A change of a table needs a script in
`jobs/migrations/versions`; see `jobs.db.schema_versions`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    false,
)

from jobs.db.db_time import UtcTime
from jobs.models import JobState

metadata = MetaData()

Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts rows only in a column declared INTEGER

_STATES = ", ".join(f"'{state.value}'" for state in JobState)

teachers = Table(
    "teachers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("format", String(32), nullable=False),
    Column("inspection", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

# Which tenant has which teacher. The bytes are stored once; each tenant has its own time and inspection result.
tenant_teachers = Table(
    "tenant_teachers",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("teacher_id", ForeignKey("teachers.id"), primary_key=True, index=True),
    Column("inspection", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("lifetime", String(8), nullable=False, server_default="own"),  # see jobs.tenancy.teachers
    Column("used_at", UtcTime),  # last use that no row of a job shows; None: created_at
)

jobs = Table(
    "jobs",
    metadata,
    # Order of arrival: the order of the queue and of the pages. Unlike a time it never ties and never steps back.
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("teacher_id", ForeignKey("teachers.id"), nullable=False, index=True),
    Column("spec", Text, nullable=False),
    Column("warnings", Text, nullable=False),
    Column("stage", String(32), nullable=False),
    Column("fraction", Float, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("total_steps", BigInteger, nullable=False),
    Column("agreement", Float),
    Column("message", Text),
    Column("best", Text),
    Column("error", Text),
    Column("attempt", Integer, nullable=False),
    Column("crash_streak", Integer, nullable=False),
    Column("uncharged_releases", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("owner", String(64)),
    Column("lease_until", UtcTime),
    Column("not_before", UtcTime, nullable=False),
    Column("cancel_requested_at", UtcTime),
    Column("threads", Integer),
    Column("checkpoint_step", BigInteger),
    Column("checkpoint_sha256", String(64), index=True),
    Column("checkpoint_bytes", BigInteger),  # None: written by a worker before revision 1_13
    Column("previous_checkpoint_sha256", String(64), index=True),
    Column("previous_checkpoint_bytes", BigInteger),
    Column("ring_at", UtcTime, nullable=False),
    Column("rings", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("claimed_at", UtcTime),
    Column("heartbeat_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("running_seconds", Float, nullable=False),
    Column("spec_version", Integer, nullable=False, server_default="1"),
    Column("traceparent", String(55)),
    Column("pause_requested_at", UtcTime),
    Column("retried_from", String(36)),
    Column("continued_from", String(36)),
    Column("continued_budget", Text),
    Column("tenant", String(64), nullable=False, server_default="default"),
    Column("priority", SmallInteger, nullable=False, server_default="0"),
    Column("device_class", String(8), nullable=False, server_default="any"),
    Column("estimate", Text),
    # Memory that the job needs on workers of each class of device; null: not known. A worker with less leaves the job.
    Column("cpu_memory_bytes", BigInteger),
    Column("gpu_memory_bytes", BigInteger),
    Column("eta_seconds", Float),  # running time that was left at `eta_at`
    Column("eta_at", UtcTime),
    CheckConstraint(f"state IN ({_STATES})", name="state_is_known"),
    # A running job without a lease could never be found again when its worker dies.
    CheckConstraint(
        "(state = 'running') = (lease_until IS NOT NULL AND owner IS NOT NULL)", name="running_means_leased"
    ),
    CheckConstraint(
        "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="terminal_means_finished"
    ),
    CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_means_error"),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_in_line", "state", "device_class", "spec_version", "priority", "tenant", "number"),
    Index("jobs_by_tenant", "tenant", "started_at"),
    Index("jobs_of_tenant", "tenant", "number"),
    Index("jobs_of_tenant_by_state", "tenant", "state", "number"),
    sqlite_autoincrement=True,
)

labels = Table(
    "labels",
    metadata,
    Column("job_number", ForeignKey("jobs.number"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("value", String(64), nullable=False),
    Index("labels_by_value", "key", "value", "job_number"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_number", ForeignKey("jobs.number"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("sha256", String(64), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("media_type", String(128), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("job_number", ForeignKey("jobs.number"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("data", Text, nullable=False),
    Column("write_id", String(32), nullable=False),  # tells whether a commit whose reply was lost took place
    Index("events_by_kind", "kind"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("device", String(32), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    # False for workers of versions before revision 1_11, whose transactions name no tenant; see jobs.db.row_security.
    Column("names_tenants", Boolean, nullable=False, server_default=false()),
    # What the worker's benchmark measured. A row with a speed stays after its worker has gone; see jobs.ledger.workers.
    Column("worker_class", String(64)),
    Column("speed", Text),
    Column("memory_bytes", BigInteger),
    Column("gone_at", UtcTime),
)

requests = Table(
    "requests",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("token", String(32), nullable=False),  # of the process that carries out the request
    Column("lease_until", UtcTime, nullable=False),
    Column("fingerprint", String(64)),
    Column("answer", Text),
    Column("expires_at", UtcTime, nullable=False, index=True),
    Column("about", String(64), index=True),  # the job or teacher that the answer describes
    CheckConstraint("(answer IS NULL) = (fingerprint IS NULL)", name="answered_means_known"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("sha256", String(64), nullable=False),  # of the secret, which is not stored
    Column("name", String(64)),
    Column("tenant", String(64), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("scopes", String(255), nullable=False),  # separated by spaces
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("last_used_at", UtcTime),
)

tenants = Table(
    "tenants",
    metadata,
    # Limits of one tenant: null means the limit of the settings, 0 means no limit.
    Column("tenant", String(64), primary_key=True),
    Column("queued_jobs", BigInteger),
    Column("running_jobs", BigInteger),
    Column("stored_bytes", BigInteger),
    Column("device_seconds_per_day", BigInteger),
)

usage = Table(
    "usage",
    metadata,
    # Device-seconds of the attempts that ended since `day` began. Running attempts are counted from their claims.
    Column("tenant", String(64), primary_key=True),
    Column("day", UtcTime, nullable=False),
    Column("device_seconds", Float, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False, index=True),
    Column("tenant", String(64), nullable=False),
    Column("key_id", String(64)),
    Column("act", String(16), nullable=False),
    Column("object_id", String(64), nullable=False, index=True),
    Column("detail", String(64)),
    Column("outcome", String(16), nullable=False),
    Column("request_id", String(36)),
    Index("audit_of_tenant", "tenant", "number"),
    sqlite_autoincrement=True,
)
