"""Makes texts of others safe to show on a terminal or to write into a log.

They come from files, host names, the kernel and other users. A control character may move the
cursor, a format character may turn a line round (U+202E), a line end may forge a line. Unsafe are
the Unicode categories C* (control, format, surrogate, private, unassigned), Zl and Zp.
"""


def is_safe(character: str) -> bool:
    """Say whether a character may be shown as it is."""
    from unicodedata import category  # noqa: PLC0415 - few texts need it, and no plain cut does

    kind = category(character)
    return not kind.startswith("C") and kind not in {"Zl", "Zp"}


def escape_unsafe(text: str) -> str:
    r"""Write every unsafe character as `\n`, `\xNN`, `\uNNNN` or `\UNNNNNNNN`; nothing is lost."""
    if text.isprintable():  # stricter than is_safe, and fast
        return text
    return "".join(c if is_safe(c) else ascii(c)[1:-1] for c in text)


def replace_unsafe(text: str, limit: int = 1000) -> str:
    """Give at most `limit` characters of a text, every unsafe one as `?`."""
    cut = text[:limit]
    return cut if cut.isprintable() else "".join(c if is_safe(c) else "?" for c in cut)


def single_line(text: str) -> str:
    """Give a text as one line: every unsafe character and every run of spaces as one space."""
    if not text.isprintable():
        text = "".join(c if is_safe(c) else " " for c in text)
    return " ".join(text.split())
