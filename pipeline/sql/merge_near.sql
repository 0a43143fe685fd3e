-- Hashes of the second corpus that one of the first agrees with on the bits of $mask, and differs
-- from in at most $phash_distance bits.
SELECT DISTINCT new.phash
FROM read_parquet($hashes) AS old
JOIN read_parquet($hashes) AS new
    ON (old.phash & CAST($mask AS UBIGINT)) = (new.phash & CAST($mask AS UBIGINT))
    AND old.first AND NOT new.first
WHERE bit_count(xor(old.phash, new.phash)) <= $phash_distance
ORDER BY new.phash
