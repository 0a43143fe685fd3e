-- The catalogue's words after captions were removed. lost: a view with word and n.
UPDATE words SET kept = kept - CAST(lost.n AS BIGINT) FROM lost WHERE lost.word = words.word
