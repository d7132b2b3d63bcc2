"""Health check of a service container: exits with 0 if the API in this container answers GET /healthz."""

import os
import sys
import urllib.request

url = os.environ.get("DFKD_HEALTH_URL", "http://127.0.0.1:8000/healthz")
with urllib.request.urlopen(url, timeout=4) as answer:
    sys.exit(0 if answer.status == 200 else 1)
