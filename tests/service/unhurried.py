"""The real service with time limits for Redis that suit the present speed of this machine."""

from service.app import create_app
from service.middleware import rate_limits
from tests.patience import scaled

__all__ = ["create_app"]

rate_limits.ANSWER_SECONDS = scaled(rate_limits.ANSWER_SECONDS)
rate_limits.AWAY_SECONDS = scaled(rate_limits.AWAY_SECONDS)
