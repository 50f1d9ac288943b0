"""Write the API reference into a folder: a page for each module of tune, from the docstrings.

    python scripts/write_api.py build/api

pdoc leaves out the modules of a package that states `__all__`, so those are named to it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pdoc


def listed_modules(package: str) -> Iterator[str]:
    """Yield the modules of a package that states `__all__`, and of its packages that do."""
    parent = import_module(package)
    if hasattr(parent, "__all__"):
        for module in iter_modules(parent.__path__, f"{package}."):
            if not module.name.endswith(".__main__"):
                yield module.name
                if module.ispkg:
                    yield from listed_modules(module.name)


def main() -> None:
    """Write the pages, and a search over them."""
    (folder,) = sys.argv[1:]
    # fields of limits are made from the table of metrics, and stand in no source
    warnings.filterwarnings("ignore", "Cannot determine where .* is taken from")
    pdoc.render.configure(docformat="numpy", show_source=False)
    pdoc.pdoc(*listed_modules("tune"), output_directory=Path(folder))


if __name__ == "__main__":
    main()
