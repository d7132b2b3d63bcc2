"""The ledger: what a job is, where it is kept, where its files are, how workers are notified. No HTTP, no torch."""
