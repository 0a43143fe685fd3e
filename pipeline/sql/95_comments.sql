-- What the tables and columns of corpus.duckdb mean. Those of `pairs` are wit.schema.PAIRS.

COMMENT ON TABLE pairs IS 'every input row, kept or dropped';
COMMENT ON COLUMN pairs.row IS 'position in the input, from 0; unique';
COMMENT ON COLUMN pairs.uid IS 'md5 of url and raw text, 32 hex digits: identifies the pair';
COMMENT ON COLUMN pairs.rank IS 'first 64 bits of uid: the order of choices; of like images, after size';
COMMENT ON COLUMN pairs.source IS 'input file the row came from';
COMMENT ON COLUMN pairs.url IS 'image URL as given (a relative path for a local folder)';
COMMENT ON COLUMN pairs.domain IS 'host name of the URL, lower case, without www.';
COMMENT ON COLUMN pairs.raw_text IS 'caption as given';
COMMENT ON COLUMN pairs.text IS 'caption after cleaning: what the model is trained on';
COMMENT ON COLUMN pairs.language IS 'most likely language of the caption (ISO 639-1)';
COMMENT ON COLUMN pairs.language_probability IS 'probability of that language, 0 to 1';
COMMENT ON COLUMN pairs.license IS 'licence that the metadata declare';
COMMENT ON COLUMN pairs.declared_width IS 'width that the metadata declare, in pixels';
COMMENT ON COLUMN pairs.declared_height IS 'height that the metadata declare, in pixels';
COMMENT ON COLUMN pairs.similarity IS 'score of image and text that came with the metadata';
COMMENT ON COLUMN pairs.nsfw IS 'score for unsafe images that came with the metadata';
COMMENT ON COLUMN pairs.watermark IS 'score for watermarks that came with the metadata';
COMMENT ON COLUMN pairs.aesthetic IS 'aesthetic score that came with the metadata';
COMMENT ON COLUMN pairs.verdict IS '''kept'' or ''dropped''';
COMMENT ON COLUMN pairs.reason IS 'why it was dropped (see reasons); null when kept';
COMMENT ON COLUMN pairs.stage IS 'stage that dropped it; null when kept';
COMMENT ON COLUMN pairs.duplicate_of IS 'uid of the pair kept instead; null unless a duplicate';
COMMENT ON COLUMN pairs.width IS 'width of the stored image in pixels';
COMMENT ON COLUMN pairs.height IS 'height of the stored image in pixels';
COMMENT ON COLUMN pairs.original_width IS 'width of the downloaded image in pixels';
COMMENT ON COLUMN pairs.original_height IS 'height of the downloaded image in pixels';
COMMENT ON COLUMN pairs.format IS 'format of the downloaded image, e.g. JPEG';
COMMENT ON COLUMN pairs.sha256 IS 'sha256 of the downloaded bytes';
COMMENT ON COLUMN pairs.phash IS '64-bit perceptual hash of the image';
COMMENT ON COLUMN pairs.key IS 'key in the shard; null when dropped';
COMMENT ON COLUMN pairs.shard IS 'shard file name, e.g. 00000.tar; null when dropped';
COMMENT ON COLUMN pairs.split IS '''train'' (in shards/) or ''val'' (in val/); null when dropped';

COMMENT ON TABLE queries IS 'the query list that captions are matched with';
COMMENT ON COLUMN queries.query_id IS 'number of the query, from 0';
COMMENT ON COLUMN queries.query IS 'the query as listed';
COMMENT ON COLUMN queries.words IS 'the query as normalised words: what is matched';
COMMENT ON COLUMN queries.source IS 'where it comes from: given, corpus, or what the list says';
COMMENT ON COLUMN queries.rank IS 'place in its list, from 0';
COMMENT ON COLUMN queries.count IS 'occurrences in what the list was made from; null when not known';
COMMENT ON COLUMN queries.score IS 'what it was chosen by in its source, e.g. pointwise mutual information in bits; null when not known';
COMMENT ON COLUMN queries.matched IS 'input rows whose caption holds the query';
COMMENT ON COLUMN queries.reached IS 'those of them that the cap was applied to: neither dropped by a rule nor a duplicate';
COMMENT ON COLUMN queries.kept IS 'pairs in the shards whose caption holds the query';

COMMENT ON TABLE matches IS 'which query occurs in which caption, of all input rows';
COMMENT ON COLUMN matches.row IS 'pairs.row';
COMMENT ON COLUMN matches.query_id IS 'queries.query_id';

COMMENT ON TABLE shards IS 'the tar files';
COMMENT ON COLUMN shards.shard IS 'file name';
COMMENT ON COLUMN shards.samples IS 'pairs in it';
COMMENT ON COLUMN shards.image_bytes IS 'bytes of its images';
COMMENT ON COLUMN shards.text_bytes IS 'bytes of its captions';
COMMENT ON COLUMN shards.first_key IS 'lowest key in it';
COMMENT ON COLUMN shards.last_key IS 'highest key in it';

COMMENT ON TABLE stages IS 'the steps of the build, in order';
COMMENT ON COLUMN stages.nth IS 'position, from 0';
COMMENT ON COLUMN stages.stage IS 'name';
COMMENT ON COLUMN stages.rows_in IS 'rows of its table';
COMMENT ON COLUMN stages.rows_out IS 'those without a reason to drop them';
COMMENT ON COLUMN stages.dropped IS 'those with one';

COMMENT ON TABLE reasons IS 'why rows are not in the shards';
COMMENT ON COLUMN reasons.reason IS 'as in pairs.reason';
COMMENT ON COLUMN reasons.stage IS 'stage that found it; null when it hit no row';
COMMENT ON COLUMN reasons.rows IS 'input rows dropped for it';
COMMENT ON COLUMN reasons.share IS 'of all input rows, 0 to 1';
COMMENT ON COLUMN reasons.meaning IS 'in words';

COMMENT ON TABLE domains IS 'hosts of the URLs';
COMMENT ON COLUMN domains.domain IS 'host name, lower case, without www.';
COMMENT ON COLUMN domains.rows IS 'input rows';
COMMENT ON COLUMN domains.kept IS 'pairs in the shards';
COMMENT ON COLUMN domains.urls IS 'distinct URLs';

COMMENT ON TABLE languages IS 'languages of the captions';
COMMENT ON COLUMN languages.language IS 'most likely language (ISO 639-1)';
COMMENT ON COLUMN languages.rows IS 'input rows';
COMMENT ON COLUMN languages.kept IS 'pairs in the shards';
COMMENT ON COLUMN languages.mean_probability IS 'mean probability of that guess, 0 to 1';

COMMENT ON TABLE words IS 'normalised words of the captions';
COMMENT ON COLUMN words.word IS 'the word';
COMMENT ON COLUMN words.rows IS 'input rows whose caption holds it';
COMMENT ON COLUMN words.kept IS 'pairs in the shards whose caption holds it';

COMMENT ON TABLE image_sizes IS 'sizes of the downloaded images that are in the shards';
COMMENT ON COLUMN image_sizes.original_width IS 'pixels';
COMMENT ON COLUMN image_sizes.original_height IS 'pixels';
COMMENT ON COLUMN image_sizes.format IS 'format of the downloaded image';
COMMENT ON COLUMN image_sizes.pairs IS 'pairs in the shards';

COMMENT ON TABLE duplicates IS 'rows dropped as duplicates, beside the one that stayed';
COMMENT ON COLUMN duplicates.row IS 'pairs.row of the dropped row';
COMMENT ON COLUMN duplicates.uid IS 'of the dropped row';
COMMENT ON COLUMN duplicates.duplicate_of IS 'uid of the row that stayed';
COMMENT ON COLUMN duplicates.reason IS 'kind of duplicate';
COMMENT ON COLUMN duplicates.url IS 'of the dropped row';
COMMENT ON COLUMN duplicates.kept_url IS 'of the row that stayed';
COMMENT ON COLUMN duplicates.text IS 'caption of the dropped row';
COMMENT ON COLUMN duplicates.kept_text IS 'caption of the row that stayed';
COMMENT ON COLUMN duplicates.rule IS 'what the row that stayed has; rank decides between equals';
COMMENT ON TABLE eval_overlaps IS 'pairs that show a picture of an evaluation set, dropped or not';
COMMENT ON COLUMN eval_overlaps.row IS 'position in the input: see pairs';
COMMENT ON COLUMN eval_overlaps.uid IS 'identifies the pair';
COMMENT ON COLUMN eval_overlaps.set IS 'name of the evaluation set''s folder';
COMMENT ON COLUMN eval_overlaps.key IS 'key of the image in the evaluation set';
COMMENT ON COLUMN eval_overlaps.how IS 'sha256 when the bytes are the same, phash when the hashes are near, feature when the features of a model are';
COMMENT ON COLUMN eval_overlaps.distance IS 'differing bits of the perceptual hashes; null where features told';
