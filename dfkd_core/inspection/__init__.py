"""Inspection (torch-free): what a teacher file is, whether a student can be distilled from it, and by which method."""
