"""`wit browse`: a local page on which people look at a corpus, search it and ask why."""
