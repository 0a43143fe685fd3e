-- Articles above the threshold of views (view views: ngram, count), as people would write them:
-- without the bracket that tells Mercury (planet) from others. Of equal names the views are summed.
-- With a list of all titles (view titles) only these count; without one, what has a colon is taken
-- for a page that is no article.
WITH articles AS (
    SELECT ngram AS title, count AS views
    FROM views
    WHERE CASE WHEN $listed THEN ngram IN (SELECT title FROM titles) ELSE NOT contains(ngram, ':') END
        AND ngram NOT IN ('-', 'Main_Page')
),
named AS (
    SELECT regexp_replace(replace(title, '_', ' '), ' \([^()]*\)$', '') AS name, views FROM articles
)
SELECT arg_min(name, (-views, name)) AS query, words, CAST(sum(views) AS BIGINT) AS count
FROM (SELECT name, views, normalised_words(name) AS words FROM named)
WHERE words != ''
GROUP BY words
HAVING sum(views) >= $min_views
ORDER BY count DESC, words
