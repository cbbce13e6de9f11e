"""Write formulas as MathML, which browsers draw themselves: the pages need no script from a network."""

import html
import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _to_mathml(node, as_block):
    # docutils knows \ldots and \cdots alone.
    tex = re.sub(r"\\dots(?![a-zA-Z])", r"\\ldots", node.astext())
    try:
        return tex2mathml(tex, as_block=as_block)
    except MathError as error:
        logger.warning("formula not understood: %s", error, location=node)
        return f"<code>{html.escape(tex)}</code>"


def _visit_inline(translator, node):
    translator.body.append(_to_mathml(node, as_block=False))
    raise nodes.SkipNode


def _visit_block(translator, node):
    translator.body.append(f'<div style="text-align: center; margin: 1em 0">{_to_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer under the name "mathml"."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
