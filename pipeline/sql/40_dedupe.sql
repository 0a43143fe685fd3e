-- Of equal pairs (canonical URL and cleaned caption) the best stays; of the captions of one URL,
-- those that say the same as a better one go, and the best $captions_per_image stay (0: all).
-- The best is that of least merit, then of lowest rank. kept_row is a row that stays in place of
-- the dropped one. Nothing is sorted but the few captions of a URL: a URL with millions of rows
-- is as good as any other.
-- Captions say the same when they have the same words, or, among the best 64 of their URL, when
-- the share of common words reaches $caption_likeness (the function `alike`).
WITH wanted AS (
    SELECT row, (merit, rank, row) AS place, url_key, text_key
    FROM read_parquet($filter)
    WHERE reason IS NULL AND url_key % $parts = $part
),
firsts AS (
    SELECT url_key, text_key, arg_min(row, place) AS row, min(place) AS place
    FROM wanted
    GROUP BY url_key, text_key
),
several AS (
    SELECT url_key
    FROM firsts
    WHERE $captions_per_image != 1
    GROUP BY url_key
    HAVING count(*) > 1
),
worded AS (
    SELECT
        firsts.row,
        firsts.place,
        firsts.url_key,
        list_sort(list_distinct(string_split(clean.words, ' '))) AS bag
    FROM read_parquet($clean) AS clean
    JOIN firsts USING (row)
    SEMI JOIN several USING (url_key)
),
bags AS (
    SELECT url_key, bag, arg_min(row, place) AS row, min(place) AS place
    FROM worded
    GROUP BY url_key, bag
),
shown AS (
    SELECT
        url_key,
        arg_min(row, place, 64) AS rows,
        alike(arg_min(array_to_string(bag, ' '), place, 64), $caption_likeness) AS kept
    FROM bags
    GROUP BY url_key
),
likenesses AS (
    SELECT unnest(rows) AS row, rows[unnest(kept)] AS like_row FROM shown
),
captions AS (
    SELECT
        firsts.row,
        firsts.place,
        firsts.url_key,
        coalesce(likenesses.like_row, bags.row, firsts.row) AS like_row
    FROM firsts
    LEFT JOIN worded ON worded.row = firsts.row
    LEFT JOIN bags ON bags.url_key = worded.url_key AND bags.bag = worded.bag
    LEFT JOIN likenesses ON likenesses.row = bags.row
),
best AS (
    SELECT
        url_key,
        arg_min(row, place, greatest($captions_per_image, 1)) AS rows,
        arg_min(place, place, greatest($captions_per_image, 1)) AS places
    FROM captions
    WHERE row = like_row
    GROUP BY url_key
),
judged AS (
    SELECT
        captions.row,
        captions.url_key,
        captions.like_row,
        $captions_per_image > 0 AND likes.place > best.places[-1] AS too_many,
        best.rows[1] AS best_row
    FROM captions
    JOIN captions AS likes ON likes.row = captions.like_row
    JOIN best ON best.url_key = captions.url_key
)
SELECT
    wanted.row,
    CASE
        WHEN wanted.row != firsts.row THEN 'duplicate_pair'
        WHEN judged.row != judged.like_row THEN 'near_duplicate_caption'
        WHEN judged.too_many THEN 'duplicate_url'
    END AS reason,
    CASE
        WHEN judged.too_many THEN judged.best_row
        WHEN wanted.row != judged.like_row THEN judged.like_row
    END AS kept_row,
    wanted.place[2] AS rank
FROM wanted
JOIN firsts USING (url_key, text_key)
JOIN judged ON judged.row = firsts.row
ORDER BY wanted.row
