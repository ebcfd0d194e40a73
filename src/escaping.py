"""Text that somebody else may have written, made harmless where it is shown: on a terminal, and in Markdown."""

import contextlib
import html
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

from markupsafe import Markup

# Control characters but tab and line ends, what turns the direction of writing, and halves of characters, which no stream takes.
STEERING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)")
MARKUP = re.compile(r"[\\`|\[]")


def clean(text: str) -> str:
    """The text with `?` for each character that would steer the terminal, or that it cannot show."""
    return STEERING.sub("?", text)


def markdown(text: Any) -> str:
    """One line of Markdown that reads as the text: no HTML, link, code or table cell begins or ends in it."""
    if isinstance(text, Markup):
        return text
    return MARKUP.sub(r"\\\g<0>", html.escape(clean(str(text).replace("\n", " ")), quote=False))


def code(text: str) -> Markup:
    """A code span of Markdown, whatever backticks the text has."""
    return _fenced(text.replace("\n", " "), " " * ("`" in text), 1)


def code_block(text: str) -> Markup:
    """The same of several lines."""
    return _fenced(text, "\n", 3)


def _fenced(text: str, around: str, ticks: int) -> Markup:
    fence = "`" * max(ticks, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence}{around}{clean(text)}{around}{fence}")


class CleanStream:
    """A stream to which others print, such as Hydra, with what they print changed.

    rich, which steers the terminal itself, looks for `rich_proxied_file` and writes there; its bars must be given that file.
    """

    def __init__(self, stream: Any, change: Callable[[str], str]) -> None:
        self.rich_proxied_file, self._change = stream, change

    def write(self, text: str) -> int:
        """Writes the changed text."""
        return self.rich_proxied_file.write(self._change(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def cleaned_output(change: Callable[[str], str] = clean) -> Iterator[None]:
    """What is printed within is cleaned, or changed in another way."""
    out, err = cast(Any, CleanStream(sys.stdout, change)), cast(Any, CleanStream(sys.stderr, change))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
