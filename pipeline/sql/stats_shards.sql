-- The first shards.
SELECT shard, samples, image_bytes FROM shards ORDER BY shard LIMIT $top
