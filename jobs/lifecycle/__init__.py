"""What ends: deletion with receipts, retention, and stored answers of idempotent requests."""
