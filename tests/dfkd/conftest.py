"""The fixtures of the service's tests, for tests of the client and the command line."""

from tests.service.conftest import finished, guarded, http, queued, running, service, teacher

__all__ = ["finished", "guarded", "http", "queued", "running", "service", "teacher"]
