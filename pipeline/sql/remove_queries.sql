-- The catalogue's queries with the pairs that each still has in the shards.
UPDATE queries SET kept = (
    SELECT count(*)
    FROM matches
    JOIN pairs USING (row)
    WHERE matches.query_id = queries.query_id AND pairs.verdict = 'kept'
)
