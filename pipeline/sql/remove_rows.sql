-- The pairs that an opt-out list takes out of a corpus, also those that it took out before.
SELECT row, uid, url, text, shard, verdict = 'kept' AS kept
FROM read_parquet($pairs) AS pairs
WHERE (verdict = 'kept' OR reason = 'opted_out')
    AND (
        uid IN (SELECT value FROM read_parquet($optouts) WHERE kind = 'uid')
        OR sha256 IN (SELECT value FROM read_parquet($optouts) WHERE kind = 'sha256')
        OR trim(url, e' \t\r\n')
            IN (SELECT value FROM read_parquet($optouts) WHERE kind = 'url')
        OR EXISTS (
            FROM read_parquet($optouts) AS optouts
            WHERE optouts.kind = 'domain' AND ends_with('.' || pairs.domain, '.' || optouts.value)
        )
    )
ORDER BY row
