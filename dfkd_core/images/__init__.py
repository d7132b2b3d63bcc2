"""Images of a run: batches, procedural images, their refinement, augmentation, reservoirs and previews."""
