-- Every pair of captions that say nearly the same, those of the best caption first.
SELECT kept_row, row FROM read_parquet($alike) ORDER BY merit, rank, kept_row, row
