"""Students of small teachers, measured on real test images."""
