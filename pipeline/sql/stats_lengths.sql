-- Characters and words of the captions in the shards, at quantiles.
SELECT
    unit,
    min(length) AS least,
    CAST(quantile_disc(length, 0.05) AS BIGINT) AS q05,
    CAST(quantile_disc(length, 0.5) AS BIGINT) AS median,
    CAST(quantile_disc(length, 0.95) AS BIGINT) AS q95,
    max(length) AS most
FROM (
    SELECT 'characters' AS unit, length(text) AS length FROM pairs WHERE verdict = 'kept'
    UNION ALL
    SELECT 'words', len(string_split(text, ' ')) FROM pairs WHERE verdict = 'kept'
)
GROUP BY unit
ORDER BY unit
