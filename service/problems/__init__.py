"""Errors of the API: the exceptions, the table of codes, and problem+json."""
