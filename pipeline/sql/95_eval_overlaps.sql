-- Pairs that show the same picture as an image of an evaluation set, dropped or not.
SELECT row, uid, set, key, how, distance FROM read_parquet($overlaps) ORDER BY row, set, key
