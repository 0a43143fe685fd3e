"""`wit queries`: make a query list as CLIP made its own, and say what it covers."""
