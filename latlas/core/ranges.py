"""Lists of whole numbers as people write them."""

from __future__ import annotations

#: a range of more is a slip of the hand
MOST = 1_000_000


def numbers(text: str) -> list[int] | None:
    """``1,2,5-9`` as whole numbers; ``None`` if it is nothing of the kind, or over a million.

    >>> numbers("1,2,5-7"), numbers("a"), numbers("3-1")
    ([1, 2, 5, 6, 7], None, None)
    """
    result: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not (last.isdigit() and int(first) <= int(last))):
            return None
        more = range(int(first), int(last if dash else first) + 1)
        if len(result) + len(more) > MOST:
            return None
        result += more
    return result
