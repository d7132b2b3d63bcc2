"""A transaction that names no tenant sees no rows. Workers of an older version keep seeing all rows until they end."""

import sqlalchemy as sa
from alembic import op

from jobs.migrations.versions.v1_9_row_security import _ASKING, _HAS_TEACHER, _TENANT

revision = "1_11"
down_revision = "1_10"

# Workers before this revision set no tenant. While one of them is alive, a transaction without a tenant still sees all
# rows, as before. The sub-query does not depend on the row, so PostgreSQL evaluates it at most once a query, and only
# for transactions without a tenant.
_OLD_WORKER_IS_ALIVE = (
    "(SELECT EXISTS (SELECT FROM workers"
    " WHERE NOT names_tenants AND seen_at > clock_timestamp() - interval '5 minutes'))"
)


def upgrade() -> None:
    """Replace the policies of 1_9. `names_tenants` is true for workers that say for whom they act.

    The policies are CASE expressions, because the planner assumes that half of the rows pass a CASE. For `=` or OR it
    assumes that hardly any row passes, and chooses plans for that.
    """
    op.add_column("workers", sa.Column("names_tenants", sa.Boolean, nullable=False, server_default=sa.false()))
    if op.get_context().dialect.name != "postgresql":
        return
    _protect("teachers", _HAS_TEACHER)
    for table, tenant in _TENANT.items():
        _protect(table, f"CASE {_ASKING} WHEN {tenant} THEN true ELSE false END")


def _protect(table: str, is_own: str) -> None:
    op.execute(f"DROP POLICY of_tenant ON {table}")
    condition = f"CASE {_ASKING} WHEN '*' THEN true WHEN '' THEN {_OLD_WORKER_IS_ALIVE} ELSE {is_own} END"
    op.execute(f"CREATE POLICY of_tenant ON {table} USING ({condition})")
