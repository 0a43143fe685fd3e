-- Fetched images and images of evaluation sets whose hashes agree on the bits of $mask and differ
-- in at most $phash_distance bits.
SELECT DISTINCT
    fetched.url_key,
    evaluation.set,
    evaluation.key,
    bit_count(xor(fetched.phash, evaluation.phash)) AS distance
FROM read_parquet($fetch) AS fetched
JOIN read_parquet($evaluation) AS evaluation
    ON (fetched.phash & CAST($mask AS UBIGINT)) = (evaluation.phash & CAST($mask AS UBIGINT))
WHERE fetched.reason IS NULL
    AND bit_count(xor(fetched.phash, evaluation.phash)) <= $phash_distance
ORDER BY fetched.url_key, evaluation.set, evaluation.key
