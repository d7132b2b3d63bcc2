"""Supervision of one attempt: the lease, the runner's messages, checkpoints, publication and the outcome."""
