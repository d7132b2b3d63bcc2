"""The HTTP API: it accepts a teacher with a spec and hands out the student. It never imports torch."""
