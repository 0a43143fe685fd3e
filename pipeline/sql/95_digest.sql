-- Rows and content of one table, whatever the order of its rows: the sum of a 64-bit hash of each.
SELECT
    count(*) AS rows,
    CAST(sum(md5_number_lower(CAST(t AS VARCHAR))) AS VARCHAR) AS total,
    any_value(typeof(t)) AS columns
FROM query_table($table) AS t
