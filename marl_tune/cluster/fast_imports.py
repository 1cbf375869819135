"""Large imports without the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Put it around large imports: the garbage collector is off meanwhile, and ignores what was imported later on.

    Imported modules are never freed, but the collector would look through them again and again, which takes a sixth of
    the time of the imports.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
