"""The client and the command line are tried against the same service as its own tests use."""

from tests.service.conftest import finished, guarded, http, queued, running, service, teacher

__all__ = ["finished", "guarded", "http", "queued", "running", "service", "teacher"]
