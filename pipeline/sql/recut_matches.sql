-- Which query of the joined list occurs in which caption, as the sources found it.
-- all_matches, all_queries, all_pairs: views with nth (of the source) and the columns of the tables.
SELECT DISTINCT pairs.row, listed.query_id
FROM all_matches
JOIN all_pairs USING (nth, row)
JOIN read_parquet($pairs) AS pairs ON pairs.uid = all_pairs.uid
JOIN all_queries USING (nth, query_id)
JOIN read_parquet($queries) AS listed ON listed.words = all_queries.words
WHERE all_pairs.verdict = 'kept'
ORDER BY pairs.row, listed.query_id
