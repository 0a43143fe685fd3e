-- Pairs of a query against its place among the queries, in the input, at the cap and in the shards;
-- at most 24 places of each octave.
WITH counted AS (
    SELECT query_id, unnest([
        {'nth': 0, 'what': 'in the input', 'pairs': matched},
        {'nth': 1, 'what': 'before the cap', 'pairs': reached},
        {'nth': 2, 'what': 'in the shards', 'pairs': kept}
    ]) AS counted
    FROM queries
),
placed AS (
    SELECT
        counted.nth,
        counted.what,
        counted.pairs,
        row_number() OVER (PARTITION BY counted.nth ORDER BY counted.pairs DESC, query_id) AS place
    FROM counted
    WHERE counted.pairs > 0
)
SELECT what, min(place) AS place, max(pairs) AS pairs
FROM placed
GROUP BY nth, what, floor(24 * log2(place))
ORDER BY nth, place
