"""What comes in: bodies, uploads, strict JSON, the spec, inspection, idempotency and the submission of a job."""
