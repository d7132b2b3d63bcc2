"""How the tables came to be what they are: one script a revision, in `versions`. See `jobs.db.schema_versions`."""
