-- How often two neighbours in a shard are alike, and how often chance would have it; how far apart
-- they stood in the input, and how far chance would have them.
WITH chosen AS (
    SELECT shard, key, row, domain, source, language
    FROM pairs
    WHERE verdict = 'kept' AND shard IN (SELECT unnest($shards))
),
beside AS (
    SELECT
        *,
        lag(row) OVER pairwise AS last_row,
        lag(domain) OVER pairwise AS last_domain,
        lag(source) OVER pairwise AS last_source,
        lag(language) OVER pairwise AS last_language
    FROM chosen
    WINDOW pairwise AS (PARTITION BY shard ORDER BY key)
),
seen AS (
    SELECT
        count(*) AS pairs,
        avg(CAST(domain = last_domain AS INTEGER)) AS domain,
        avg(CAST(source = last_source AS INTEGER)) AS source,
        avg(CAST(language = last_language AS INTEGER)) AS language,
        avg(abs(row - last_row)) AS distance
    FROM beside
    WHERE last_row IS NOT NULL
),
of_domains AS (SELECT count(*) AS n FROM chosen WHERE domain IS NOT NULL GROUP BY domain),
of_sources AS (SELECT count(*) AS n FROM chosen GROUP BY source),
of_languages AS (SELECT count(*) AS n FROM chosen WHERE language IS NOT NULL GROUP BY language),
chance AS (
    SELECT
        (SELECT sum(n * (n - 1)) / greatest(sum(n) * (sum(n) - 1), 1) FROM of_domains) AS domain,
        (SELECT sum(n * (n - 1)) / greatest(sum(n) * (sum(n) - 1), 1) FROM of_sources) AS source,
        (SELECT sum(n * (n - 1)) / greatest(sum(n) * (sum(n) - 1), 1) FROM of_languages)
            AS language,
        (
            SELECT 2 * sum((2 * nth - n - 1) * CAST(row AS DOUBLE))
                / greatest(any_value(n) * (any_value(n) - 1), 1)
            FROM (
                SELECT row, row_number() OVER (ORDER BY row) AS nth, count(*) OVER () AS n
                FROM chosen
            )
        ) AS distance
)
SELECT
    seen.pairs,
    seen.domain AS domain_seen,
    chance.domain AS domain_chance,
    seen.source AS source_seen,
    chance.source AS source_chance,
    seen.language AS language_seen,
    chance.language AS language_chance,
    seen.distance AS distance_seen,
    chance.distance AS distance_chance
FROM seen, chance
