"""The report as one HTML page: its Markdown, the plots inside. No network, no script."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML

STYLE = """
:root { --ink: #1c2733; --soft: #5b6875; --line: #d9dfe5; --tint: #f4f7f9; --mark: #0b6e4f; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 62rem; background: #fff;
  color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; letter-spacing: -.01em; }
h1 + p { margin-top: 0; color: var(--soft); font-size: 1.1rem; }
h2 { margin: 2.75rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line);
  font-size: 1.25rem; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1.05rem; }
p, li { max-width: 46rem; }
blockquote { margin: 1.5rem 0; padding: .9rem 1.2rem; border-left: 4px solid var(--mark);
  background: #eef7f3; border-radius: 0 6px 6px 0; font-size: 1.1rem; }
blockquote p { margin: 0; }
.table { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; text-align: left; border-bottom: 2px solid var(--line); }
th, td { padding: .35rem .9rem .35rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); }
td + td { white-space: nowrap; }
tbody tr:hover { background: var(--tint); }
td strong { color: var(--mark); }
code { padding: .1em .3em; border-radius: 4px; background: var(--tint); font-size: .9em; }
img { max-width: 100%; height: auto; margin: .5rem 0; }
em { color: var(--soft); font-style: normal; font-size: .92rem; }
"""


def html_page(markdown: str, title: str, folder: Path) -> str:
    """`markdown` as a page. Pictures are PNG files of `folder`; a missing one is left out."""
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    body = parser.render(markdown, {"folder": folder})
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )


class _Renderer(RendererHTML):
    """As usual, but pictures stand in the page itself, and wide tables scroll by themselves."""

    def image(self, tokens: Any, idx: int, options: Any, env: Any) -> str:
        path = env["folder"] / unquote(str(tokens[idx].attrs["src"]))
        if not path.is_file():
            return ""
        data = base64.b64encode(path.read_bytes()).decode()
        return f'<img alt="{escape(tokens[idx].content)}" src="data:image/png;base64,{data}">'

    def table_open(self, *_: Any) -> str:
        return '<div class="table"><table>'

    def table_close(self, *_: Any) -> str:
        return "</table></div>"
