"""Jobs know which version of the spec they hold and which trace they belong to; events are counted by kind."""

import sqlalchemy as sa
from alembic import op

revision = "1_1"
down_revision = "0_1"


def upgrade() -> None:
    """A job that does not say its version, old or put in by an older service, has version 1."""
    op.add_column("jobs", sa.Column("spec_version", sa.Integer, nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("traceparent", sa.String(55)))
    op.create_index("events_by_kind", "events", ["kind"])
