"""What is done again and again beside a sweep must not end with one failure."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def guarded(what: Callable[[], object]) -> Callable[[], None]:
    """`what`, but that which it raises is logged; once, for as long as it stays the same."""
    logged = ""

    def run() -> None:
        nonlocal logged
        try:
            what()
            logged = ""
        except Exception as error:
            if repr(error) != logged:
                log.warning("failed, and is done again: %r", error, exc_info=error)
            logged = repr(error)

    return run
