-- Pairs of a domain against its place among the domains; at most 24 places of each octave.
WITH placed AS (
    SELECT kept, row_number() OVER (ORDER BY kept DESC, domain) AS place
    FROM domains
    WHERE kept > 0
)
SELECT min(place) AS place, max(kept) AS pairs
FROM placed
GROUP BY floor(24 * log2(place))
ORDER BY place
