-- How many rows bear the scores that rules can be about.
SELECT
    count(similarity) AS similarity,
    count(nsfw) AS nsfw,
    count(watermark) AS watermark,
    count(aesthetic) AS aesthetic
FROM pairs
