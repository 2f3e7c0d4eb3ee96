"""Writes man(7) pages, from texts in the small part of Markdown that docs/ uses."""

import re
from collections.abc import Iterable


def escaped(text: str) -> str:
    """Give plain text as roff takes it: nothing in it may become a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def inline(markdown: str) -> str:
    """Give a line of Markdown: code and emphasis bold, a link by its words."""
    markdown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    parts = re.split(r"`([^`]*)`|\*\*([^*]*)\*\*", markdown)
    out = []
    for place, part in enumerate(parts):
        if part:
            out.append(escaped(part) if place % 3 == 0 else bold(part))
    text = "".join(out)
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def bold(text: str) -> str:
    """Give words to be typed as they stand."""
    return f"\\fB{escaped(text).removeprefix(chr(92) + '&')}\\fR"


def item(head: str, text: str) -> str:
    """Give an entry of a list: a head in roff, a text in Markdown."""
    return f".TP\n{head}\n{inline(text) or 'No more is to be said of it.'}\n"


def code(lines: Iterable[str]) -> str:
    """Give lines as they stand."""
    body = "\n".join(escaped(line) for line in lines)
    return f".PP\n.RS 4\n.nf\n{body}\n.fi\n.RE\n"


def prose(markdown: str) -> str:
    """Give paragraphs, lists and indented or fenced examples."""
    out = []
    for block in re.split(r"\n{2,}", markdown.strip("\n")):
        lines = block.split("\n")
        if lines[0].startswith("```"):
            out.append(code(line for line in lines if not line.startswith("```")))
        elif lines[0].startswith("    "):
            out.append(code(line[4:] for line in lines))
        elif lines[0].startswith("- "):
            out += [f".IP \\(bu 2\n{inline(line)}\n" for line in _joined(lines)]
        else:
            out.append(f".PP\n{inline(' '.join(line.strip() for line in lines))}\n")
    return "".join(out)


def _joined(lines: Iterable[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if line.startswith("- "):
            found.append(line[2:])
        else:
            found[-1] += f" {line.strip()}"
    return found


def head(name: str, section: int, date: str, version: str, short: str) -> str:
    """Begin a page."""
    return (
        f'.\\" Made from the code and from docs/ by packaging/make_deb: change it there.\n'
        f'.TH {name.upper()} {section} {date} "ecluse {version}" "Écluse"\n'
        f".SH NAME\n{escaped(name)} \\- {escaped(short)}\n"
    )


def section(name: str, *parts: str) -> str:
    """Give a section."""
    return f".SH {name}\n" + _less_space("".join(parts))


def subsection(name: str, *parts: str) -> str:
    """Give a part of a section."""
    return f".SS {name}\n" + _less_space("".join(parts))


def _less_space(text: str) -> str:
    return text.removeprefix(".PP\n")  # a heading begins a paragraph by itself
