"""ASGI middleware and the HTTP protocol: what holds for every request before a route sees it."""
