"""Limits of tenants, what they have used, and who did what."""

import sqlalchemy as sa
from alembic import op

from jobs.db.db_time import UtcTime

revision = "1_7"
down_revision = "1_6"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Tables of their own: older versions know no limits, charge nobody and write nothing down."""
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("queued_jobs", sa.BigInteger),
        sa.Column("running_jobs", sa.BigInteger),
        sa.Column("stored_bytes", sa.BigInteger),
        sa.Column("device_seconds_per_day", sa.BigInteger),
    )
    op.create_table(
        "usage",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("day", UtcTime, nullable=False),
        sa.Column("device_seconds", sa.Float, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", UtcTime, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64)),
        sa.Column("act", sa.String(16), nullable=False),
        sa.Column("object_id", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(64)),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(36)),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_object_id", "audit", ["object_id"])
    op.create_index("audit_of_tenant", "audit", ["tenant", "number"])
