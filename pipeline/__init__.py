"""Stage one: caption-URL metadata to a corpus directory. Read `stages.py` first."""
