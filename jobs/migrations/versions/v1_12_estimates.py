"""What a job will take on each class of worker, how fast each worker is, and when a job is expected to end."""

import sqlalchemy as sa
from alembic import op

from jobs.db.db_time import UtcTime

revision = "1_12"
down_revision = "1_11"


def upgrade() -> None:
    """All columns may be null: older versions neither measure a worker nor estimate a job."""
    op.add_column("workers", sa.Column("worker_class", sa.String(64)))
    op.add_column("workers", sa.Column("speed", sa.Text))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger))
    op.add_column("workers", sa.Column("gone_at", UtcTime))
    op.add_column("jobs", sa.Column("estimate", sa.Text))
    op.add_column("jobs", sa.Column("cpu_memory_bytes", sa.BigInteger))
    op.add_column("jobs", sa.Column("gpu_memory_bytes", sa.BigInteger))
    op.add_column("jobs", sa.Column("eta_seconds", sa.Float))
    op.add_column("jobs", sa.Column("eta_at", UtcTime))
