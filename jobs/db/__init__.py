"""The database: connections, tables, dialects, time, row security and schema versions."""
