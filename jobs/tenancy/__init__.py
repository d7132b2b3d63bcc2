"""Tenants: their keys, teachers, quotas, usage and the audit log."""
