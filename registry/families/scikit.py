"""Loading scikit-learn, in two thirds of the time."""

import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def lean_import() -> Iterator[None]:
    """What this thread imports meanwhile finds no pandas, unless it is loaded already.

    scikit-learn loads it where it can, for data frames, which it never gets from us. Nor is garbage looked for: imports
    make many objects and none.
    """
    finder, is_collecting = _WithoutPandas(), gc.isenabled()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if is_collecting:
            gc.enable()


class _WithoutPandas(MetaPathFinder):
    """Another thread may import pandas at the same time, and must get it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("not needed here", name=fullname)
        return None
