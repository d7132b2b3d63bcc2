-- Run once, by the entry point of PostgreSQL's image, when the volume is new: an ordinary role owns the ledger, because
-- row-level security does not bind superusers. These are left without a password: only who is in the container is one.
\getenv password POSTGRES_PASSWORD
CREATE ROLE dfkd LOGIN PASSWORD :'password';
CREATE DATABASE dfkd OWNER dfkd;
ALTER ROLE CURRENT_USER PASSWORD NULL;
