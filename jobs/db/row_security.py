"""The second wall between tenants: PostgreSQL itself shows and takes only the rows of the tenant that is asking.

The first wall is that every query for a caller names its tenant. The policies of revision 1_9 are for the query that
forgets it. They go by the setting `dfkd.tenant` of the transaction: where that is empty or was never set, rows are
everybody's, as workers, the service by itself and versions without policies need them. SQLite has no such wall.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

UNPREPARED = {"no_parameters": True}
"""Execution options of a message that PostgreSQL is not asked to prepare: `jobs.db.postgres`."""

_TENANT = "dfkd_tenant"  # execution option of a connection: whose rows its transaction has just now


def narrow(connection: Connection, tenant: str | None) -> None:
    """Until the transaction ends there are this tenant's rows alone; with None, everybody's.

    A transaction that has not begun yet begins like that, at no cost; otherwise it is a message of its own.
    """
    if tenant_of(connection) == tenant:
        return
    connection.execution_options(**{_TENANT: tenant})
    if connection.dialect.name == "postgresql" and connection.in_transaction():
        connection.exec_driver_sql(setting(tenant), execution_options=UNPREPARED)


@contextmanager
def everybodys(connection: Connection) -> Iterator[None]:
    """For statements that have to know what others have, and tell the tenant nothing of it but their outcome.

    An error leaves the transaction without its wall: it is at its end.
    """
    tenant = tenant_of(connection)
    narrow(connection, None)
    yield
    narrow(connection, tenant)


def tenant_of(connection: Connection) -> str | None:
    """Whose rows there are; None: everybody's."""
    tenant: str | None = connection.get_execution_options().get(_TENANT)
    return tenant


def setting(tenant: str | None) -> str:
    """The statement by which PostgreSQL is told."""
    value = (tenant or "").replace("'", "''")
    return f"SET LOCAL dfkd.tenant = '{value}'"


def unbound_role(connection: Connection) -> str | None:
    """The role of this connection where no policy binds it, as with superusers and BYPASSRLS; None on SQLite."""
    if connection.dialect.name != "postgresql":
        return None
    asked = "SELECT current_user WHERE NOT row_security_active('jobs')"
    found: str | None = connection.exec_driver_sql(asked).scalar_one_or_none()
    return found
