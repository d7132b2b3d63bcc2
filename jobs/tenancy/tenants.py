"""Tenants as the ledger knows them: the limits that they have of their own, and how they stand."""

from collections.abc import Mapping

from sqlalchemy import select, union

from jobs.db import tables
from jobs.db.database import Database, Transaction, dialect_insert
from jobs.quota_limits import Quota, Quotas
from jobs.tenancy import quotas
from jobs.tenancy.quotas import Use

_tenants = tables.tenants


class Tenants:
    """Tenants, one transaction a method: `Store.tenants`."""

    def __init__(self, database: Database, defaults: Quotas) -> None:
        self._database = database
        self._defaults = defaults

    def quota_usage(self, tenant: str) -> dict[Quota, Use]:
        """Every quota of a tenant, and what it has used of it; of one that nobody has heard of, too."""
        return self._database.read(lambda connection: quotas.quota_usage(connection, tenant, self._defaults))

    def names(self) -> list[str]:
        """Tenants that have jobs, or limits of their own."""
        known = union(select(_tenants.c.tenant), select(tables.jobs.c.tenant), select(tables.tenant_teachers.c.tenant))
        return sorted(self._database.read(lambda connection: connection.execute(known).scalars().all()))

    def limit(self, tenant: str, limits: Mapping[Quota, int | None]) -> None:
        """Give a tenant limits of its own; None: that of the settings, 0: none. Jobs that run go on."""

        def work(transaction: Transaction) -> None:
            statement = dialect_insert(transaction.connection, _tenants).values({"tenant": tenant, **limits})
            statement = statement.on_conflict_do_update(index_elements=[_tenants.c.tenant], set_=dict(limits))
            transaction.connection.execute(statement)

        self._database.write(work)
