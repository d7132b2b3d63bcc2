"""Row-level security: PostgreSQL separates tenants even where a query forgets to. See `jobs.db.row_security`."""

from alembic import op

revision = "1_9"
down_revision = "1_8"

_ASKING = "(SELECT coalesce(current_setting('dfkd.tenant', true), ''))"  # as a subquery it is evaluated once a query
_OF_JOB = "(SELECT jobs.tenant FROM jobs WHERE jobs.number = job_number)"

# Whose a row is.
_TENANT = {
    "tenant_teachers": "tenant",
    "jobs": "tenant",
    "labels": _OF_JOB,
    "artifacts": _OF_JOB,
    "events": _OF_JOB,
    "requests": "CASE strpos(key, ' ') WHEN 0 THEN 'default' ELSE split_part(key, ' ', 1) END",
    "api_keys": "tenant",
    "tenants": "tenant",
    "usage": "tenant",
    "audit": "tenant",
}

# A teacher is shared: it is there for whoever has it, and for whoever has jobs that tell of it.
_HAS_TEACHER = " OR ".join(
    f"EXISTS (SELECT FROM {table} WHERE tenant = {_ASKING} AND teacher_id = teachers.id)"
    for table in ("tenant_teachers", "jobs")
)


def upgrade() -> None:
    """Nothing changes for older versions: they never say who is asking. The policies bind the tables' owner, too.

    CASE, because the planner takes half of the rows to pass it: of `=` or OR it would expect next to none, and choose
    plans for that.
    """
    if op.get_context().dialect.name != "postgresql":
        return
    _protect("teachers", f"CASE {_ASKING} WHEN '' THEN true ELSE {_HAS_TEACHER} END")
    for table, tenant in _TENANT.items():
        _protect(table, f"CASE {_ASKING} WHEN '' THEN true WHEN {tenant} THEN true ELSE false END")


def _protect(table: str, condition: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY of_tenant ON {table} USING ({condition})")
