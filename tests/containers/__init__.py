"""Tests of the container files; building them for real is `make containers`."""
