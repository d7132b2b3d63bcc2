"""The context of a store: in whose name it acts, which rows it sees, and the limits of the deployment."""

from dataclasses import dataclass

from jobs.identity import ANONYMOUS, Caller
from jobs.quota_limits import Quotas


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """The limits of the deployment, from its settings."""

    default_quotas: Quotas  # quotas of the tenants that have none of their own
    max_attempts: int  # a job fails when its worker was lost in this many attempts
    max_crashes: int  # a job fails after this many crashes without a newer checkpoint
    backoff_seconds: float  # delay of a job after its first crash; each further crash doubles it


@dataclass(frozen=True, slots=True)
class LedgerContext:
    """The second argument of the ledger's functions that a store offers as methods."""

    limits: LedgerLimits
    caller: Caller = ANONYMOUS  # the audit log names this caller, and new rows belong to its tenant
    tenant: str | None = None  # the tenant whose rows are visible; None: the rows of all tenants
