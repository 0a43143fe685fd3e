-- By source: how many of its queries stand in a caption of the sample and how many in none, how
-- many captions it covers, and how many no other source covers.
WITH by_caption AS (
    SELECT matches.row, list.source, list.rank, count(DISTINCT list.source) OVER (PARTITION BY matches.row) AS n
    FROM read_parquet($matches) AS matches
    JOIN read_parquet($list) AS list ON list.rank = matches.query_id
),
covered AS (
    SELECT
        source,
        count(DISTINCT row) AS captions,
        count(DISTINCT row) FILTER (n = 1) AS captions_of_it_alone
    FROM by_caption
    GROUP BY source
)
SELECT
    matched.source,
    count(*) AS listed,
    count(*) FILTER (matched.captions > 0) AS matched,
    count(*) FILTER (matched.captions = 0) AS match_nothing,
    round(100 * count(*) FILTER (matched.captions = 0) / count(*), 1) AS percent_nothing,
    coalesce(any_value(covered.captions), 0) AS captions,
    coalesce(any_value(covered.captions_of_it_alone), 0) AS captions_of_it_alone
FROM read_parquet($coverage) AS matched
LEFT JOIN covered ON covered.source = matched.source
GROUP BY matched.source
ORDER BY min(matched.rank)
