"""What a corpus is: schema, shard format, manifest, tokenizer, config, errors, the command."""
