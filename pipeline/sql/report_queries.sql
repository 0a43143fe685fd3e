-- Queries from the head of the list to its tail: $top places, an equal step apart in the logarithm.
WITH placed AS (
    SELECT *, row_number() OVER (ORDER BY kept DESC, reached DESC, query_id) AS place
    FROM queries
    WHERE kept > 0
),
wanted AS (
    SELECT CAST(round(pow((SELECT count(*) FROM placed), nth / ($top - 1))) AS BIGINT) AS place
    FROM range($top) AS steps(nth)
)
SELECT place, query_id, query, source, matched, reached, kept
FROM placed
SEMI JOIN wanted USING (place)
ORDER BY place
