"""Jobs in the ledger: submission, scheduling, leases, pauses, the end of an attempt, and what can be asked."""
