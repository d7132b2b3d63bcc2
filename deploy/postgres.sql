-- The entry point of PostgreSQL's image runs this once, when the volume is new. An ordinary role owns the database,
-- because row-level security does not bind superusers. The superuser loses its password, so that one can become
-- superuser only from inside the container.
\getenv password POSTGRES_PASSWORD
CREATE ROLE dfkd LOGIN PASSWORD :'password';
CREATE DATABASE dfkd OWNER dfkd;
ALTER ROLE CURRENT_USER PASSWORD NULL;
