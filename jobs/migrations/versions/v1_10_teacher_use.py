"""When a tenant used a teacher last, as far as no job tells."""

import sqlalchemy as sa
from alembic import op

from jobs.db.db_time import UtcTime

revision = "1_10"
down_revision = "1_9"


def upgrade() -> None:
    """Where it is not known, as in rows of older versions, it is when the tenant first sent the teacher."""
    op.add_column("tenant_teachers", sa.Column("used_at", UtcTime))
