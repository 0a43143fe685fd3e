-- The pairs that queries bring in, each of its pairs with the probability $cap / pairs of the query,
-- drawn independently (MetaCLIP, Xu et al. 2023, section 3.3).
-- The draw is a hash of the pair's rank and the query's words to 32 bits (two rounds of multiply
-- and shift, as in MurmurHash3's finalizer), so it is the same on every run, in any order.
WITH wanted AS (
    SELECT match.query_id, match.row, standing.rank
    FROM read_parquet($match) AS match
    JOIN read_parquet($standing) AS standing USING (row)
    WHERE standing.reason IS NULL AND match.query_id % $parts = $part
),
sizes AS (
    SELECT
        wanted.query_id,
        $cap / count(*) * 4294967296.0 AS bound,
        md5_number_lower(any_value(queries.words)) AS query_key
    FROM wanted
    JOIN read_parquet($queries) AS queries USING (query_id)
    GROUP BY wanted.query_id
    HAVING count(*) > $cap
),
mixed AS (
    SELECT wanted.row, sizes.bound, xor(wanted.rank, sizes.query_key) AS a
    FROM wanted
    JOIN sizes USING (query_id)
),
stirred AS (SELECT row, bound, xor((a & 4294967295) * 2654435761, a >> 32) AS b FROM mixed),
drawn AS (
    SELECT row, bound, (xor(b, b >> 32) & 4294967295) * 2246822519 AS c FROM stirred
)
SELECT row
FROM (
    SELECT wanted.row FROM wanted ANTI JOIN sizes USING (query_id)
    UNION
    SELECT row FROM drawn WHERE CAST(xor(c, c >> 32) & 4294967295 AS DOUBLE) < bound
)
ORDER BY row
