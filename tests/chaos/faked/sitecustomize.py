"""Read by every Python that runs under a false clock: `time.sleep` by a call that libfaketime leaves alone.

Python sleeps until a moment of the monotonic clock; libfaketime 0.9.10 shifts that moment even where it is told to
leave the monotonic clock alone, and every sleep fails with EINVAL. No clock of ours would do that.
"""

import os
import select
import time

if {"FAKETIME", "FAKETIME_TIMESTAMP_FILE"} & os.environ.keys():
    time.sleep = lambda seconds: select.select([], [], [], seconds) and None  # type: ignore[assignment]
