"""The service around the science: its load, its memory, its client and its sandbox."""
