"""Time and memory of jobs: what is planned and what is measured, and where the time goes."""
