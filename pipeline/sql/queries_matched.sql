-- The list with the number of captions of the sample that hold each query.
SELECT list.query, list.source, list.rank, count(matches.row) AS captions
FROM read_parquet($list) AS list
LEFT JOIN read_parquet($matches) AS matches ON matches.query_id = list.rank
GROUP BY list.query, list.source, list.rank
ORDER BY list.rank
