-- Pairs of hashes that agree on the bits of $mask and differ in at most $phash_distance bits.
SELECT better.place AS better, worse.place AS worse
FROM read_parquet($hashes) AS better
JOIN read_parquet($hashes) AS worse
    ON (better.phash & CAST($mask AS UBIGINT)) = (worse.phash & CAST($mask AS UBIGINT))
    AND better.place < worse.place
WHERE bit_count(xor(better.phash, worse.phash)) <= $phash_distance
ORDER BY better, worse
