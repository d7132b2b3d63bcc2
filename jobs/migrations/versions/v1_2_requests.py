"""Requests that came with a key, so that the same request again gets the same answer."""

import sqlalchemy as sa
from alembic import op

from jobs.db.db_time import UtcTime

revision = "1_2"
down_revision = "1_1"


def upgrade() -> None:
    """A table of its own: older versions know no keys and write nothing here."""
    op.create_table(
        "requests",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("lease_until", UtcTime, nullable=False),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("answer", sa.Text),
        sa.Column("expires_at", UtcTime, nullable=False),
        sa.CheckConstraint("(answer IS NULL) = (fingerprint IS NULL)", name="answered_means_known"),
    )
    op.create_index("ix_requests_expires_at", "requests", ["expires_at"])
