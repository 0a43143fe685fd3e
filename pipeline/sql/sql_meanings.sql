-- The tables of the catalogue and what they hold.
SELECT table_name AS "table", comment AS meaning
FROM duckdb_tables()
WHERE schema_name = 'main' AND NOT internal
ORDER BY table_name
