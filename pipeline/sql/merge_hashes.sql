-- The distinct perceptual hashes of two corpora: which corpus holds them.
SELECT phash, true AS first FROM read_parquet($first) WHERE verdict = 'kept' AND phash IS NOT NULL
UNION
SELECT phash, false FROM read_parquet($second) WHERE verdict = 'kept' AND phash IS NOT NULL
