"""Tenants have a teacher until some time, and requests say which job or teacher their answer tells of."""

import sqlalchemy as sa
from alembic import op

revision = "1_8"
down_revision = "1_7"


def upgrade() -> None:
    """What is there, or put in by an older service, stays until it is deleted by itself."""
    op.add_column("tenant_teachers", sa.Column("lifetime", sa.String(8), nullable=False, server_default="own"))
    op.add_column("requests", sa.Column("about", sa.String(64)))
    op.create_index("ix_requests_about", "requests", ["about"])
