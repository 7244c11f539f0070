"""MathJax, which sets the formulas of pages and decks, as files of an installed package."""

import importlib.util
from pathlib import Path

PACKAGE, SCRIPT = "sphinx-mathjax-offline", "static/mathjax/tex-svg.js"  # one file, its fonts drawn as paths
NETWORK = "https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-svg.js"


def script() -> Path | None:
    """The MathJax that is installed, or None. The package's name is none that Python could import."""
    spec = importlib.util.find_spec(PACKAGE)
    places = (Path(folder) / SCRIPT for folder in (spec.submodule_search_locations or [])) if spec else ()
    return next((place for place in places if place.is_file()), None)
