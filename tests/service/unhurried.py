"""The service as it is, but with limits on what Redis may take that suit this machine as it is now."""

from service.app import create_app
from service.middleware import rate_limits
from tests.patience import scaled

__all__ = ["create_app"]

rate_limits.ANSWER_SECONDS = scaled(rate_limits.ANSWER_SECONDS)
rate_limits.AWAY_SECONDS = scaled(rate_limits.AWAY_SECONDS)
