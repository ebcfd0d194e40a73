"""Keeps secrets out of everything that is written: keys and environment variables that look like secrets."""

import io
import os
import re
from typing import Any, TextIO

SECRET_WORD = (
    r"(?:(?:secrets?|passwords?|passwd|passphrase|token|api[_-]?keys?|access[_-]?key|private[_-]?key|credentials?)(?![a-z])"
    r"|(?<![a-z])auth(?:orization)?(?![a-z]))"
)
SECRET_NAME = re.compile(SECRET_WORD, re.IGNORECASE)
# Values that are secrets whatever their key: credentials in an address, and the prefixes of well-known tokens.
SECRET_VALUE = re.compile(
    r"(?<=://)[^/\s:@]+:[^\s@]+(?=@)"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abprs]-|AKIA)[A-Za-z0-9_-]{8,}"
)
ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?([A-Za-z_][A-Za-z0-9_]*)")
ASSIGNMENT = re.compile(r"^([+~]*)([\w./@-]+)=(.*)$", re.DOTALL)
ENTRY = re.compile(r"""([\w.-]+)['"]?\s*:\s*('[^']*'|"[^"]*"|[^\s,{}\[\]'"$]+)""")
# In a patch: each file's part, and in it what a secret name is given, to the line's end; in code that is a secret if quoted.
PATCH_PART = re.compile(r"(?m)^(?=diff --git )")
GIVEN = rf"({SECRET_WORD}[\w.-]*[\\\"'\])]*[ \t]*[:=][ \t]*)"
NO_NAME = r"(?![A-Za-z_][\w.]*$)[^\s()\[\]{},]+$"  # a lone word that is no variable: a number, or what is in no quotes
GIVEN_IN_CODE = re.compile(rf"(?im){GIVEN}(?:[^\n]*['\"][^\n]*|{NO_NAME})")
GIVEN_ELSEWHERE = re.compile(rf"(?im){GIVEN}\S[^\n]*")
NETRC = re.compile(r"(?im)^([-+ ][ \t]*(?:(?:machine|login|account)[ \t]+\S+[ \t]+|default[ \t]+)*password[ \t]+)[^\s:=]\S*")
PEM = re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----)(.*?)(?=-----END |\ndiff --git |\Z)")
BLOCK = re.compile(  # of YAML: what is indented deeper than its key, which may stand in the line that says where a change is
    rf"(?im)^([-+ ]|@@[^\n]*@@ )([ \t]*)(?=\S)([^\n]*{SECRET_WORD}[\w.-]*['\"]?[ \t]*:[ \t]*(?:[!&]\S+[ \t]+)*[|>][^\n]*)"
    r"((?:\n(?:[-+ ](?:\2[ \t]+\S[^\n]*|[ \t]*$)|\\ No newline[^\n]*))+)"
)
HIDDEN = "***"


class Redactor:
    """Replaces secrets by `***`.

    Args:
        overrides: The command's `key=value` words; values of keys that look like secrets are secrets.
        config: The configuration before interpolation; environment variables with such a name are secrets.
    """

    def __init__(self, overrides: list[str], config: Any = None) -> None:
        self.secrets: set[str] = set()
        self.learn(overrides, config)

    def learn(self, overrides: list[str], config: Any = None) -> None:
        """Adds the secrets of further words and of another configuration."""
        for override in overrides:
            if (match := ASSIGNMENT.match(override)) and SECRET_NAME.search(match[2]):
                self._collect(match[3], secret=True)
            for key, value in ENTRY.findall(override):  # of a dictionary: logger={api_key:...}
                self._collect(value, secret=bool(SECRET_NAME.search(key)))
        self._collect(config, secret=False)
        for name in _environment_names([*overrides, *_strings(config)]):
            if SECRET_NAME.search(name):
                self.secrets.add(os.environ.get(name, ""))
        self.secrets = {secret for value in self.secrets for secret in (value, value.strip("'\"")) if len(secret) > 1}

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return SECRET_VALUE.sub(HIDDEN, text)

    def patch(self, patch: str) -> str:
        """A patch without secrets: also those of keys that no configuration has, such as in a file beside the source."""
        return self.text("".join(_hide_in_part(part) for part in PATCH_PART.split(patch)))

    def tree(self, value: Any, secret: bool = False) -> Any:
        """The same dictionaries and lists without secrets in their strings."""
        if isinstance(value, dict):
            return {self.text(str(k)): self.tree(item, secret or bool(SECRET_NAME.search(str(k)))) for k, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item, secret) for item in value]
        if secret and value is not None and not isinstance(value, bool):
            return HIDDEN
        return self.text(value) if isinstance(value, str) else value

    def _collect(self, value: Any, secret: bool) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._collect(item, secret or bool(SECRET_NAME.search(str(key))))
        elif isinstance(value, list | tuple):
            for item in value:
                self._collect(item, secret)
        elif secret and isinstance(value, str):
            self.secrets.update(os.environ.get(name, "") for name in ENVIRONMENT.findall(value))
            if "${" not in value:
                self.secrets.add(value)


class Redacted(io.TextIOBase):
    """A stream that others print to, such as Hydra, without secrets."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream, self._redactor = stream, redactor

    def write(self, text: str) -> int:
        """Writes the text without secrets."""
        return self._stream.write(self._redactor.text(text))

    def flush(self) -> None:
        """Hands on what is still held."""
        self._stream.flush()


def _hide_in_part(part: str) -> str:
    is_code = part.partition("\n")[0].endswith(".py")
    part = BLOCK.sub(lambda found: found[1] + found[2] + found[3] + _hide_lines(found[4]), part)
    part = (GIVEN_IN_CODE if is_code else GIVEN_ELSEWHERE).sub(rf"\1{HIDDEN}", part)
    part = NETRC.sub(rf"\1{HIDDEN}", part)
    return PEM.sub(lambda found: found[1] + _hide_lines(found[2]), part)


def _hide_lines(lines: str) -> str:
    """All but what says whether a line of a patch came or went, or that its file ends there."""
    return re.sub(r"(?m)^([^\\\n]).+$", rf"\1{HIDDEN}", lines)


def _environment_names(texts: list[str]) -> list[str]:
    return [name for text in texts for name in ENVIRONMENT.findall(text)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []
