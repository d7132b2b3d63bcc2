"""The front desk: FastAPI takes a teacher in and hands a student out. Never imports torch."""
