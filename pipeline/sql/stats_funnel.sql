-- What reached each stage that decides about rows, and what went on. The last line is what the
-- shards hold. 60_fetch counts URLs, not rows.
SELECT
    stage,
    rows_in,
    dropped,
    rows_out,
    round(100 * rows_out / greatest(rows_in, 1), 2) AS passed_percent
FROM stages
WHERE stage IN (
    '30_filter', '40_dedupe', '50_balance', '60_fetch', '70_images', '80_pack', 'reshard'
)
ORDER BY nth
