"""Which records live in the second workspace: every eighth, so that the n-th record of either is found by arithmetic.

What the records are does not belong here.
"""

DEFAULT_WORKSPACE = "0"

_EVERY, _AT = 8, 5


def is_in_second(number: int) -> bool:
    """Whether the record of this number lives in the second workspace, once there is one."""
    return number % _EVERY == _AT


def share_of(count: int, *, second: bool) -> int:
    """How many of `count` records live in the second workspace, or in the first."""
    in_second = (count + _EVERY - 1 - _AT) // _EVERY
    return in_second if second else count - in_second


def number_of(nth: int, *, second: bool) -> int:
    """The number of the `nth` record of the second workspace, or of the first; both count from 0."""
    if second:
        return _EVERY * nth + _AT
    whole, rest = divmod(nth, _EVERY - 1)
    return _EVERY * whole + rest + (rest >= _AT)
