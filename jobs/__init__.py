"""The ledger: what a job is, where it is kept, where its files are, how the bell is rung. No HTTP, no torch."""
