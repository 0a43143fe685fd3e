"""Progress lines of stages: those of the whole project."""

from wit.progress import Progress, duration

__all__ = ["Progress", "duration"]
