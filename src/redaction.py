"""Keeps secrets out of everything that is written: keys and environment variables that look like secrets."""

import os
import re
from typing import Any

SECRET_NAME = re.compile(
    r"(?i)(?:secrets?|passwords?|passwd|passphrase|token|api_?keys?|access_?key|private_?key|credentials?)(?![a-z])"
    r"|(?<![a-z])auth(?:orization)?(?![a-z])"
)
# Values that are secrets whatever their key: credentials in an address, and the prefixes of well-known tokens.
SECRET_VALUE = re.compile(
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abprs]-|AKIA)[A-Za-z0-9_-]{8,}"
)
ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?([A-Za-z_][A-Za-z0-9_]*)")
ASSIGNMENT = re.compile(r"^([+~]*)([\w./@-]+)=(.*)$", re.DOTALL)
ENTRY = re.compile(r"""([\w.-]+)['"]?\s*:\s*('[^']*'|"[^"]*"|[^\s,{}\[\]'"$]+)""")
# In a patch: a line of YAML, of an .env file or of code that gives a key a value.
PATCH_LINE = re.compile(
    r"""(?m)^([-+ ]\s*(?:export\s+)?['"]?([\w.-]+)['"]?\s*[:=]\s*)(?:(['"])[^'"\n]+\3|[^\s'"()\[\]{},$]+)(\s*,?)$"""
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
        hidden = PATCH_LINE.sub(
            lambda match: f"{match[1]}{HIDDEN}{match[4]}" if SECRET_NAME.search(match[2]) else match[0], patch
        )
        return self.text(hidden)

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


def _environment_names(texts: list[str]) -> list[str]:
    return [name for text in texts for name in ENVIRONMENT.findall(text)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []
