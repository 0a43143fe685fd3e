-- Words of a caption, on average over its distinct words.
SELECT avg(size) AS size FROM words.postings
