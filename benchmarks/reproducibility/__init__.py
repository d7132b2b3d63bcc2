"""Equal bytes: of students from one version to the next, and of what checkpoints leave out."""
