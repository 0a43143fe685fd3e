-- The tables of the catalogue with their columns, types and meanings.
SELECT table_name AS "table", column_name AS "column", lower(data_type) AS type, comment AS meaning
FROM duckdb_columns()
WHERE schema_name = 'main' AND NOT internal
ORDER BY table_name, column_index
