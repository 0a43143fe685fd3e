-- Of the lines of an all-titles file (table titles): all, malformed, and the first of these.
SELECT
    count(*) AS lines,
    count(*) FILTER (NOT good) AS malformed,
    min(number) FILTER (NOT good) AS first,
    arg_min(example, number) FILTER (NOT good) AS example
FROM titles
