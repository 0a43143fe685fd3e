"""Stage two: a corpus directory to a checkpoint. Read `loop.py` first."""
