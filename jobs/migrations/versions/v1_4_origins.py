"""Jobs tell from which other job they come."""

import sqlalchemy as sa
from alembic import op

revision = "1_4"
down_revision = "1_3"


def upgrade() -> None:
    """Plain ids: the other job may be deleted."""
    op.add_column("jobs", sa.Column("retried_from", sa.String(36)))
    op.add_column("jobs", sa.Column("continued_from", sa.String(36)))
    op.add_column("jobs", sa.Column("continued_budget", sa.Text))
