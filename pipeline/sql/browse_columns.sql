-- The columns of pairs, with type and meaning.
SELECT column_name, data_type, coalesce(comment, '') AS meaning
FROM duckdb_columns()
WHERE table_name = 'pairs' AND database_name = current_database()
ORDER BY column_index
