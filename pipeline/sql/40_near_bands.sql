-- The bands of the MinHash signature of each caption. Equal keys of one band make two captions
-- candidates (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, section 3.4).
-- minhash_bands: the function `pipeline.near_texts.Sketch`; shingles: a macro, shingles.sql.
WITH firsts AS (
    SELECT row, merit, rank
    FROM read_parquet($firsts)
    WHERE row = first_row AND row >= $first AND row < $last
),
sketched AS (
    SELECT
        firsts.row,
        firsts.merit,
        firsts.rank,
        minhash_bands(
            list_transform(
                shingles(clean.words, $shingle), lambda shingle: md5_number_lower(shingle)
            )
        ) AS keys
    FROM read_parquet($clean) AS clean
    JOIN firsts USING (row)
    WHERE clean.words != ''
)
SELECT
    CAST(generate_subscripts(keys, 1) - 1 AS SMALLINT) AS band,
    unnest(keys) AS key,
    row,
    merit,
    rank
FROM sketched
ORDER BY band, row
