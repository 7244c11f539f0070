"""Sphinx's settings for the site. `pfmcourse.course.site` copies this file beside the pages that it gathers.

Nothing here may reach the network, neither while building nor in the reader's browser.
"""

import json
from pathlib import Path

import pfmcourse

HERE = Path(__file__).parent
ALTS = json.loads((HERE / "alts.json").read_text(encoding="utf-8"))  # file name of a picture -> what it shows

project = "Pretrained foundation models"
author = "The pfmcourse contributors"
copyright = f"{author}. Code: Apache-2.0; prose and pictures: CC BY 4.0"
version = release = pfmcourse.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.mathjax"]
exclude_patterns = ["files"]  # what pages offer for download
suppress_warnings = ["ref.python"]  # two classes of one name: the reader finds the right one beside it
default_role = "py:obj"  # `name` in a docstring: a link where it is a name of ours, else plain code
numfig = False

# Notebooks come with their outputs; nothing is executed.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/markdown", 5)]
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_update_mathjax = False

add_module_names = False
python_maximum_signature_line_length = 96
python_trailing_comma_in_multi_line_signatures = False
toc_object_entries = True
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "Pretrained foundation models"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_show_sphinx = False
html_show_search_summary = False  # the summary is fetched from the page, which a browser forbids on file://
html_copy_source = False
html_domain_indices = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_navbar_depth": 1,
    "max_navbar_depth": 3,
    "collapse_navbar": True,
    "navbar_persistent": [],
    "logo": {"text": "Pretrained foundation models"},
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
mathjax_path = "mathjax/tex-svg.js"  # version 3, one file with all its fonts
mathjax3_config = {
    "svg": {"fontCache": "local"},
    "options": {"menuOptions": {"settings": {"assistiveMml": True}}},
}


def alternatives(app, document) -> None:
    """Give every picture from a notebook the alt text that its output carries; myst-nb leaves it behind."""
    from docutils import nodes

    for image in document.findall(nodes.image):
        image.setdefault("alt", ALTS.get(Path(image["uri"]).name, ""))


def setup(app):
    """Connect the function above."""
    app.connect("doctree-read", alternatives)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
