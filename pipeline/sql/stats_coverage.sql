-- How the pairs in the shards spread over the queries.
WITH ordered AS (
    SELECT kept, row_number() OVER (ORDER BY kept DESC, query_id) AS nth FROM queries
)
SELECT
    count(*) AS queries,
    count(*) FILTER (kept = 0) AS without_pairs,
    CAST(median(kept) AS BIGINT) AS median_kept,
    max(kept) AS most_kept,
    round(
        100 * sum(kept) FILTER (nth <= (SELECT ceil(count(*) / 100) FROM queries))
        / greatest(sum(kept), 1),
        2
    ) AS percent_in_top_1_percent
FROM ordered
