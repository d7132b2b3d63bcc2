"""Running jobs can be asked to pause."""

import sqlalchemy as sa
from alembic import op

from jobs.db.db_time import UtcTime

revision = "1_3"
down_revision = "1_2"


def upgrade() -> None:
    """An older worker does not see the wish and goes on; a newer one that claims the job later does."""
    op.add_column("jobs", sa.Column("pause_requested_at", UtcTime))
