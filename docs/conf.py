"""Sphinx: `make docs` builds the site from the repository's Markdown and the code's docstrings.

The source folder is the repository, so that links between README.md, docs/ and examples/ are the same there and on GitHub.
"""

import logging
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
logging.getLogger().addHandler(logging.NullHandler())  # else fairseq and our commands configure logging here

import fairseq_bert_kd.tasks  # noqa: E402  before autodoc imports single modules

project = "fairseq_bert_kd"
release = version = fairseq_bert_kd.__version__
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md", "examples/README.md", "examples/*/README.md"]
exclude_patterns = ["build", ".venv", "**/out"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

smartquotes = False  # they turn -- of options into a dash
add_module_names = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"fairseq_bert_kd {release}"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_extra_path = ["_root"]  # the folder's own index.html leads to docs/index.html
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
