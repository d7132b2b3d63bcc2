"""Row security: PostgreSQL itself shows and accepts only the rows of the tenant that a transaction names.

Every query for a caller already names its tenant. The policies of revisions 1_9 and 1_11 protect against a query that
forgets to. They read the setting `dfkd.tenant` of the transaction:

    a tenant's name   only the rows of this tenant
    ALL_TENANTS       all rows: workers, the sweep, garbage collection, metrics, the look-up of API keys
    not set, or ''    no rows; see revision 1_11 for the one exception while workers of an older version run

SQLite has no row security; there the setting has no effect.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

ALL_TENANTS = "*"
"""Value of `dfkd.tenant` with which a transaction works for all tenants. No tenant can have this name."""

_OPTION = "dfkd_tenant"  # execution option of a connection: the value of `dfkd.tenant` in its transaction

UNPREPARED = {"no_parameters": True}
"""Execution options of a message that PostgreSQL is not asked to prepare; see `jobs.db.postgres`."""


def set_tenant(connection: Connection, tenant: str | None) -> None:
    """Restrict the rest of the transaction to the rows of `tenant`; ALL_TENANTS shows all rows, None shows no rows.

    Before the transaction has begun this costs nothing: the setting is sent together with BEGIN. In an open transaction
    it is one more message to the server.
    """
    if tenant_of(connection) == tenant:
        return
    connection.execution_options(**{_OPTION: tenant})
    if connection.dialect.name == "postgresql" and connection.in_transaction():
        connection.exec_driver_sql(setting(tenant), execution_options=UNPREPARED)


@contextmanager
def as_all_tenants(connection: Connection) -> Iterator[None]:
    """Show all rows inside the block, for a statement that must count or lock rows of other tenants.

    The tenant must learn nothing from such a statement but its outcome. An exception leaves the setting as it is inside
    the block, because the transaction ends with the exception.
    """
    tenant = tenant_of(connection)
    set_tenant(connection, ALL_TENANTS)
    yield
    set_tenant(connection, tenant)


def tenant_of(connection: Connection) -> str | None:
    """Return the tenant whose rows the connection shows; ALL_TENANTS for all rows; None for no rows."""
    tenant: str | None = connection.get_execution_options().get(_OPTION)
    return tenant


def setting(tenant: str | None) -> str:
    """Return the SQL statement that sets `dfkd.tenant` until the transaction ends."""
    value = (tenant or "").replace("'", "''")
    return f"SET LOCAL dfkd.tenant = '{value}'"


def unbound_role(connection: Connection) -> str | None:
    """Return the role of this connection if the policies do not bind it (a superuser, or BYPASSRLS); None on SQLite."""
    if connection.dialect.name != "postgresql":
        return None
    asked = "SELECT current_user WHERE NOT row_security_active('jobs')"
    found: str | None = connection.exec_driver_sql(asked).scalar_one_or_none()
    return found
