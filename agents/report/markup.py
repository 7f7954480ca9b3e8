"""The report's pieces of HTML: words, tables, legends, figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def words(text: str) -> str:
    """`text` for HTML, such that a name_with_underscores breaks behind an underscore and nowhere else."""
    return escape(text).replace("_", "_<wbr>").replace(" %", "&nbsp;%")


def table(
    header: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    caption: str = "",
    last_is_total: bool = False,
    numbers: bool = True,
) -> str:
    """An HTML table; its first column names the row. numbers: the other columns are aligned to the right."""
    head = f"<thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr></thead>" if header else ""
    lines = []
    for index, row in enumerate(rows):
        total = ' class="total"' if last_is_total and index == len(rows) - 1 else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        lines.append(f"<tr{total}><th>{words(row[0])}</th>{cells}</tr>")
    about = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = "numbers" if numbers else "texts"
    return f'<div class="wide"><table class="{kind}">{about}{head}<tbody>{"".join(lines)}</tbody></table></div>\n'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names of colours."""
    items = "".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for colour, name in entries)
    return f'<p class="legend">{items}</p>'


def figure(title: str, note: str, chart: str) -> str:
    """A chart under its title and a remark."""
    return f'<figure><figcaption>{escape(title)} <span class="note">{escape(note)}</span></figcaption>{chart}</figure>'
