"""Times as they are written into files, and read back as moments that can be compared."""

from datetime import datetime, timezone
from typing import Any


def now() -> str:
    """Local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def parse_time(text: Any) -> datetime | None:
    """The moment that `now` wrote; None where the text is no time. A time without an offset is read as UTC.

    Times are compared as moments, never as text: across time zones, or when clocks are put back, the two orders differ.
    """
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    if not 1970 <= moment.year < 9999:  # so that one may add to it
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
