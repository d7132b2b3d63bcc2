"""API keys, and which tenant has uploaded which teacher."""

import sqlalchemy as sa
from alembic import op

from jobs.db.db_time import UtcTime

revision = "1_6"
down_revision = "1_5"


def upgrade() -> None:
    """Teachers that are there already belong to the one tenant there was.

    `jobs.tenancy.teachers` sees to those that an older service still puts in.
    """
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64)),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("scopes", sa.String(255), nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
        sa.Column("expires_at", UtcTime),
        sa.Column("revoked_at", UtcTime),
        sa.Column("last_used_at", UtcTime),
    )
    op.create_table(
        "tenant_teachers",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("teacher_id", sa.String(64), sa.ForeignKey("teachers.id"), primary_key=True),
        sa.Column("inspection", sa.Text, nullable=False),
        sa.Column("created_at", UtcTime, nullable=False),
    )
    op.create_index("ix_tenant_teachers_teacher_id", "tenant_teachers", ["teacher_id"])
    op.execute(
        "INSERT INTO tenant_teachers (tenant, teacher_id, inspection, created_at) "
        "SELECT 'default', id, inspection, created_at FROM teachers"
    )
    op.create_index("jobs_of_tenant", "jobs", ["tenant", "number"])
    op.create_index("jobs_of_tenant_by_state", "jobs", ["tenant", "state", "number"])
