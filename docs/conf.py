"""Configuration of the documentation: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import sys
from pathlib import Path

import sklearn_flows

sys.path.append(str(Path(__file__).parent / "_ext"))

project = "sklearn_flows"
author = "The sklearn_flows developers"
copyright = author
version = release = sklearn_flows.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
exclude_patterns = ["_build", "auto_examples/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
default_role = "code"
html_math_renderer = "mathml"
myst_heading_anchors = 3

# The templates list the methods themselves; numpydoc's own listing would ask for a page for each of them.
numpydoc_show_class_members = False
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Methods of our own base classes are shown with each class; those of scikit-learn's and torch's are documented there.
autosummary_context = {
    "external_bases": "ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, RegressorMixin, MultiOutputMixin,"
    " CallbackSupportMixin, BaseEstimator, _MetadataRequester, _SetOutputMixin, Sequential, Linear, Module, ABC, object"
}

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"plot_",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "parallel": 2,
}

html_theme = "pydata_sphinx_theme"
html_title = f"sklearn_flows {release}"
html_show_sphinx = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {
    page: [] for page in ("index", "install", "what_is_a_flow", "choosing", "outliers", "speed", "user_guide", "changelog")
}
