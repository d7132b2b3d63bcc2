"""A short benchmark of this machine, from which the time of a job is estimated: `python -m dfkd_core.calibration`."""
