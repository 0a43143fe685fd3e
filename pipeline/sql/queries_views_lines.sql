-- Of the lines of a pageview file (table hour): all, malformed, and the first of these.
SELECT
    CAST(coalesce(sum(lines), 0) AS BIGINT) AS lines,
    CAST(coalesce(sum(lines) FILTER (NOT good), 0) AS BIGINT) AS malformed,
    min(first) AS first,
    arg_min(example, first) AS example
FROM hour
