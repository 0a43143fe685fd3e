-- How large the cap must be for how many pairs: a histogram of the cap from which a pair stays, in
-- steps of a 64th of an octave. With independent draws a pair stays when a draw u of one of its
-- queries of n pairs is under cap / n, that is from the cap u n on. Of bottom-k the place among the
-- n pairs takes that part, which is, for ranks are uniform, about rank / 2^64 n.
WITH wanted AS (
    SELECT match.query_id, match.row, dedupe.rank
    FROM read_parquet($match) AS match
    JOIN read_parquet($dedupe) AS dedupe USING (row)
    WHERE dedupe.reason IS NULL
),
sizes AS (
    SELECT
        wanted.query_id,
        count(*) AS pairs,
        md5_number_lower(any_value(queries.words)) AS query_key
    FROM wanted
    JOIN read_parquet($queries) AS queries USING (query_id)
    GROUP BY wanted.query_id
),
mixed AS (
    SELECT
        wanted.row,
        wanted.rank,
        sizes.pairs,
        xor(wanted.rank, sizes.query_key) AS a
    FROM wanted
    JOIN sizes USING (query_id)
),
stirred AS (SELECT *, xor((a & 4294967295) * 2654435761, a >> 32) AS b FROM mixed),
drawn AS (SELECT *, (xor(b, b >> 32) & 4294967295) * 2246822519 AS c FROM stirred),
needed AS (
    SELECT row, min(pairs * CASE
        WHEN $method = 'bottom_k' THEN CAST(rank AS DOUBLE) / 18446744073709551616.0
        ELSE CAST(xor(c, c >> 32) & 4294967295 AS DOUBLE) / 4294967296.0
    END) AS cap
    FROM drawn
    GROUP BY row
)
SELECT CAST(ceil(64 * log2(greatest(cap, 1))) AS INTEGER) AS step, count(*) AS pairs
FROM needed
GROUP BY step
ORDER BY step
