"""The sizes of a job's checkpoints, which count towards the stored bytes of its tenant."""

import sqlalchemy as sa
from alembic import op

revision = "1_13"
down_revision = "1_12"


def upgrade() -> None:
    """Leave the sizes of earlier checkpoints unknown; such checkpoints count as 0 bytes."""
    op.add_column("jobs", sa.Column("checkpoint_bytes", sa.BigInteger))
    op.add_column("jobs", sa.Column("previous_checkpoint_bytes", sa.BigInteger))
