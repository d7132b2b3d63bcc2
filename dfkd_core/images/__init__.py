"""Images of a run: batches, images drawn by rule, their refinement, augmentation, reservoirs and previews."""
