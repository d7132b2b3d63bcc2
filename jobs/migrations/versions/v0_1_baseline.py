"""The tables as they were before there were revisions."""

import sqlalchemy as sa
from alembic import op

from jobs.db.db_time import UtcTime

revision = "0_1"
down_revision = None

_STATES = "'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled'"
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Everything."""
    op.create_table(
        "teachers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("inspection", sa.Text, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
    )
    _create_jobs()
    op.create_table(
        "labels",
        sa.Column("job_number", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )
    op.create_index("labels_by_value", "labels", ["key", "value", "job_number"])
    op.create_table(
        "artifacts",
        sa.Column("job_number", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String(128), nullable=False),
    )
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])
    op.create_table(
        "events",
        sa.Column("job_number", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("at", UtcTime, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("write_id", sa.String(32), nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("device", sa.String(32), nullable=False),
        sa.Column("started_at", UtcTime, nullable=False),
        sa.Column("seen_at", UtcTime, nullable=False),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(36), nullable=False, unique=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("teacher_id", sa.String(64), sa.ForeignKey("teachers.id"), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("warnings", sa.Text, nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("fraction", sa.Float, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("total_steps", sa.BigInteger, nullable=False),
        sa.Column("agreement", sa.Float),
        sa.Column("message", sa.Text),
        sa.Column("best", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crash_streak", sa.Integer, nullable=False),
        sa.Column("uncharged_releases", sa.Integer, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", UtcTime),
        sa.Column("not_before", UtcTime, nullable=False),
        sa.Column("cancel_requested_at", UtcTime),
        sa.Column("threads", sa.Integer),
        sa.Column("checkpoint_step", sa.BigInteger),
        sa.Column("checkpoint_sha256", sa.String(64)),
        sa.Column("previous_checkpoint_sha256", sa.String(64)),
        sa.Column("ring_at", UtcTime, nullable=False),
        sa.Column("rings", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("updated_at", UtcTime, nullable=False),
        sa.Column("started_at", UtcTime),
        sa.Column("claimed_at", UtcTime),
        sa.Column("heartbeat_at", UtcTime),
        sa.Column("finished_at", UtcTime),
        sa.Column("running_seconds", sa.Float, nullable=False),
        sa.CheckConstraint(f"state IN ({_STATES})", name="state_is_known"),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL AND owner IS NOT NULL)", name="running_means_leased"
        ),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="terminal_means_finished",
        ),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="failed_means_error"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "number"])
    for column in ("teacher_id", "checkpoint_sha256", "previous_checkpoint_sha256"):
        op.create_index(f"ix_jobs_{column}", "jobs", [column])
