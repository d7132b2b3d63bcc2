"""Health check of a worker container: exits with 0 if the ledger has a recent heartbeat of a worker on this host."""

import socket
import sys

from jobs.settings import Settings
from jobs.store import open_store

settings = Settings()
store = open_store(settings)
workers = store.live_workers(max_age_seconds=2 * settings.heartbeat_seconds)
sys.exit(0 if any(worker.host == socket.gethostname() for worker in workers) else 1)
