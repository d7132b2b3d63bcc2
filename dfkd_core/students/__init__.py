"""Students as PyTorch networks: built, pruned from the teacher's graph, given the teacher's weights, prepared."""
