"""Keeps secrets out of everything that is written.

Secrets are: what is given to a key that names one, or to keys below it (`hf_token`, `db.password`, `credentials.user`); what
comes from an environment variable of such a name, or is its default in `${oc.env:NAME,default}`; what stands before the @ of
an address; what has the form of a well-known token. In configurations and in words of the command line this structure alone
decides, and every other value stays as it is. In free text, such as errors and logs, what was found to be a secret is hidden
wherever it stands, if it has LEAST characters.

Not hidden is what nothing tells from an ordinary value: a secret under a key of another name, a shorter one in free text, one
in a file, such as a tracked one whose changes diff.patch shows.
"""

import os
import re
from typing import Any

HIDDEN = "***"
LEAST = 8  # characters; shorter ones, such as 16 or true, are parts of ordinary words
SECRET_NAME = re.compile(  # as the last word of a key; a cls_token is a part of a network
    r"(?i)(?:^|[^a-z0-9])(?:secrets?|passwords?|passwd|passphrase|credentials?|auth|authorization"
    r"|(?:api|access|private|secret)[_-]?keys?|(?<!cls.)(?<!pad.)(?<!mask.)(?<!class.)token)\d*$"
)
# No secret under any key: nothing, a switch, a small number, and a reference to where the value is.
PLAIN = re.compile(r"(?i)(?:null|none|true|false|-?\d{1,3}(?:\.\d+)?)?|['\"]?\$\{[^,{}]*\}['\"]?")
ADDRESS_OR_TOKEN = re.compile(
    r"(?<=://)[^/\s:@]+:[^\s@]+(?=@)"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abprs]-|AKIA)(?:[A-Za-z0-9]+[_-])*[A-Za-z0-9]{16,}[\w-]*"
)
DEFAULT = re.compile(r"(\$\{\s*oc\.env\s*:\s*['\"]?(\w+)['\"]?\s*,\s*)([^}]*)")
INTERPOLATION = re.compile(r"\$\{[^}]*")
ENTRY = re.compile(r"""([\w.-]+)['"]?\s*:\s*('[^']*'|"[^"]*"|\$\{[^,{}]*\}|[{\[]|[^\s,{}\[\]]*)""")  # of a dictionary in a word


def names_secret(key: str) -> bool:
    """Whether the dotted key, or one that it lies below, ends with a word for a secret; `token_dim` does not."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)
    return any(SECRET_NAME.search(part) for part in re.split(r"[./@]", words))


class Redactor:
    """Replaces secrets by `***`, and remembers those that it has met, and the environment's, for free text.

    Args:
        words: Of the command line.
    """

    def __init__(self, words: list[str]) -> None:
        self.secrets: set[str] = set()
        self.tree({name: value for name, value in os.environ.items() if names_secret(name)})
        self.learn(words)

    def learn(self, words: list[str]) -> None:
        """Remembers the secrets of further words."""
        for word in words:
            self.word(word)

    def text(self, text: str) -> str:
        """Free text without secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return self._value(text)

    def word(self, word: str) -> str:
        """A word of the command line without secrets."""
        key, sign, value = word.partition("=")
        found = [given for name, given in ENTRY.findall(value) if names_secret(name)] if "{" in value else []
        if sign and any([names_secret(key) and self._hide(value) == HIDDEN, *(self._hide(given) == HIDDEN for given in found)]):
            return f"{key}={HIDDEN}"
        return self._value(word)

    def tree(self, value: Any, written: Any = None, is_secret: bool = False) -> Any:
        """The same dictionaries and lists without secrets.

        Args:
            value: As it is, or the configuration with its interpolations filled in.
            written: The configuration before that, which tells what came from the environment.
            is_secret: Whether it lies below a key that names a secret.
        """
        references = " ".join(INTERPOLATION.findall(written)) if isinstance(written, str) else ""
        is_secret = is_secret or any(map(names_secret, re.findall(r"[\w.-]+", references)))
        if isinstance(value, dict):
            return {k: self.tree(v, _below(written, k), is_secret or names_secret(str(k))) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item, _below(written, number), is_secret) for number, item in enumerate(value)]
        if is_secret or (references and self.text(str(value)) != str(value)):
            return self._hide(value)
        return self._value(value) if isinstance(value, str) else value

    def _value(self, text: str) -> str:
        """Without what is a secret whatever its key."""
        return ADDRESS_OR_TOKEN.sub(lambda found: self._hide(found[0]), DEFAULT.sub(self._default, text))

    def _default(self, found: re.Match[str]) -> str:
        return found[1] + str(self._hide(found[3])) if names_secret(found[2]) else found[0]

    def _hide(self, value: Any) -> Any:
        """`***` for a value that is a secret unless it is none under any key."""
        if PLAIN.fullmatch(text := str(value)):
            return value
        self.secrets |= {secret for secret in (text, text.strip("'\"")) if len(secret) >= LEAST}
        return HIDDEN


def _below(written: Any, key: Any) -> Any:
    """What stands there; of what an interpolation brings in as a whole, that interpolation."""
    if isinstance(written, dict):
        return written.get(key)
    return written[key] if isinstance(written, list) and key < len(written) else written
