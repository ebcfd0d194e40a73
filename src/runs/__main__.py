"""`python -m src.runs WORD ...`: each word is a file of this folder."""

import importlib
import signal
import sys

from src.config_errors import did_you_mean
from src.errors import ConfigError, UserError
from src.escaping import clean, cleaned_output

WORDS = {
    "list": "runs under outputs/: list [SWEEP or FOLDER] [key=value ...] [status=finished] [sort=score] [format=table|json|csv]",
    "compare": "configurations ranked, with what may be said of them: compare SWEEP or FOLDER ... [key=value ...]",
    "diff": "a lab note in Markdown on two runs: diff FOLDER FOLDER, or diff SWEEP:top2",
    "replay": "whether a run still composes and scores the same; exit code 1 if not: replay FOLDER [root=DATA] [device=cpu]",
    "explain": "a key's value, type, allowed values, meaning and origin: explain KEY [key=value ...] or explain KEY run=FOLDER",
    "report": "a study's page, HTML and Markdown: report SWEEP [output=FOLDER] [root=DATA] [save=FOLDER]",
}

FILES = {"list": "listing"}  # a module named list would hide Python's own


def main() -> None:
    """The command line."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print("usage: python -m src.runs WORD ...\n")
        print("\n".join(f"  {word:8} {text}" for word, text in WORDS.items()))
        return
    try:
        if words[0] not in WORDS:
            raise ConfigError(f"{words[0]}: no such word; there are {', '.join(WORDS)}{did_you_mean(words[0], list(WORDS))}")
        with cleaned_output():
            importlib.import_module(f"src.runs.{FILES.get(words[0], words[0])}").main(words[1:])
    except UserError as error:
        sys.exit(f"error: {clean(str(error))}")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `list | head` ends without a word
    main()
