"""The input space of a teacher, found from its file: which pixel values it was trained on (torch-free, NumPy only)."""
