"""Tenants: their names, their own limits and their use of these limits."""

from collections.abc import Mapping

from sqlalchemy import select, union

from jobs.db import tables
from jobs.db.database import Database, Transaction, dialect_insert
from jobs.quota_limits import Quota, Quotas
from jobs.tenancy import quotas
from jobs.tenancy.quotas import Use

_tenants = tables.tenants


class Tenants:
    """The tenants of the ledger (`Store.tenants`). Each method is one transaction."""

    def __init__(self, database: Database, defaults: Quotas) -> None:
        self._database = database
        self._defaults = defaults

    def quota_usage(self, tenant: str) -> dict[Quota, Use]:
        """Every quota of a tenant with its use. A tenant without a row has the default limits and no use."""
        return self._database.read(lambda connection: quotas.quota_usage(connection, tenant, self._defaults))

    def names(self) -> list[str]:
        """Return the names of all tenants that have jobs, teachers or limits of their own."""
        known = union(select(_tenants.c.tenant), select(tables.jobs.c.tenant), select(tables.tenant_teachers.c.tenant))
        return sorted(self._database.read(lambda connection: connection.execute(known).scalars().all()))

    def limit(self, tenant: str, limits: Mapping[Quota, int | None]) -> None:
        """Give a tenant its own limits. None means the limit of the settings, 0 no limit. Running jobs go on."""

        def work(transaction: Transaction) -> None:
            statement = dialect_insert(transaction.connection, _tenants).values({"tenant": tenant, **limits})
            statement = statement.on_conflict_do_update(index_elements=[_tenants.c.tenant], set_=dict(limits))
            transaction.connection.execute(statement)

        self._database.write(work)
