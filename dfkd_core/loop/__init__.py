"""The distillation loop: rounds, schedule, checkpoints, the probe and the published student."""
