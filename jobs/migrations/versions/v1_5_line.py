"""Jobs have a tenant, a priority and a device class, by which they are claimed."""

import sqlalchemy as sa
from alembic import op

revision = "1_5"
down_revision = "1_4"


def upgrade() -> None:
    """What is queued already, or put in by an older service, is the one tenant's and runs anywhere."""
    op.add_column("jobs", sa.Column("tenant", sa.String(64), nullable=False, server_default="default"))
    op.add_column("jobs", sa.Column("priority", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("device_class", sa.String(8), nullable=False, server_default="any"))
    columns = ["state", "device_class", "spec_version", "priority", "tenant", "number"]
    op.create_index("jobs_in_line", "jobs", columns)
    op.create_index("jobs_by_tenant", "jobs", ["tenant", "started_at"])
