"""Text of somebody else on a terminal and in Markdown, which another library renders."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import make_run, make_sweep
from markdown_it import MarkdownIt

from src.cli import errors_in_one_line
from src.escaping import clean, cleaned_output, code, code_block, markdown
from src.runs import __main__ as runs
from src.runs.diff import lab_note
from src.runs.listing import print_rows
from src.studies.ledger import read_study, write_study
from src.studies.reading import Run, read_run
from src.studies.report.page import TEMPLATES, write_report

TITLE = "\x1b]0;owned\x07"  # makes this the window's title
HOSTILE = "<script>alert(1)</script>[x](http://evil) ![y](http://evil) `a|b` \\`<img src=x>\\| & &lt;\n\n# <b>"
RENDER = MarkdownIt("commonmark", {"html": True}).enable("table").render


def tags(page: str) -> set[str]:
    return set(re.findall(r"<(\w+)", page))


@given(st.text())
def test_a_clean_text_can_be_printed_and_steers_nothing(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    cleaned.encode()
    assert not re.search(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]", cleaned)
    if text.isprintable():
        assert cleaned == text


@pytest.mark.parametrize("text", ["a\x1b[31m", "\x9b31m", "\u202eabc", "\u2066a", "\ud800", "line\rother", "\x08\x7f"])
def test_what_steers_is_shown_as_a_question_mark(text: str) -> None:
    assert "?" in clean(text)
    assert clean("a\tb\r\nc\n") == "a\tb\r\nc\n"


@given(st.text(alphabet="ab<>&`|\\\\[]()!*\n\r \x1b#-", max_size=30) | st.just(HOSTILE))
def test_in_markdown_a_text_is_only_text(text: str) -> None:
    cell = RENDER(f"| a | b |\n|---|---|\n| {markdown(text)} | {code('x')} |\n")
    assert tags(cell) <= {"table", "thead", "tbody", "tr", "th", "td", "code", "em", "strong"}
    assert cell.count("<td>") == 2
    assert "<code>x</code></td>" in cell


@given(st.text(alphabet="ab<&`|\\\\\n ", min_size=1, max_size=30) | st.just(HOSTILE))
def test_code_is_only_code(text: str) -> None:
    assert tags(RENDER(f"command: {code(text)}")) <= {"p", "code"}
    block = RENDER(f"- a\n\n  {code_block(text)}".replace("\n", "\n  "))
    assert tags(block) == {"ul", "li", "p", "pre", "code"}


@pytest.mark.parametrize("print_it", [lambda text: print(text), lambda text: print(text, file=sys.stderr)], ids=["out", "err"])
def test_all_that_is_printed_behind_the_front_door(print_it: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    with errors_in_one_line() as redactor:
        redactor.learn(["+api_key=hush-hush"])
        print_it(f"{TITLE}hush-hush\x1b[0m \ud800")
    assert "".join(capsys.readouterr()) == "?]0;owned?***?[0m ?\n"


def test_an_error_line_of_a_foreign_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name, its keys and its targets."""
    folder = make_run(tmp_path / f"a{TITLE}", 0.3)
    (folder / "config.yaml").write_text(json.dumps({f"model{TITLE}": 1}))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.pt").touch()
    for words in (["replay", str(folder)], [f"x{TITLE}"], ["list", str(tmp_path), f"sort={TITLE}"]):
        monkeypatch.setattr("sys.argv", ["runs", *words])
        with pytest.raises(SystemExit) as caught:
            runs.main()
        assert "owned" in str(caught.value)
        assert "\x1b" not in str(caught.value) + "".join(capsys.readouterr())


def test_tables_and_notes_of_foreign_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (make_run(tmp_path / f"{name}{TITLE}`|<b>", 0.3, init=f"{name}{HOSTILE}{TITLE}") for name in "ab")
    (a / "diff.patch").write_text(f"+```\n+<script>{TITLE}\n")
    home = str(tmp_path)
    for words in (["list", home], ["list", home, "format=csv"], ["compare", home], ["diff", str(a), str(b)]):
        monkeypatch.setattr("sys.argv", ["runs", *words])
        runs.main()
        said = "".join(capsys.readouterr())
        assert "owned" in said or words[0] == "compare"
        assert "\x1b" not in said
    note = RENDER(lab_note(*(Run(folder, read_run(folder)) for folder in (a, b))))
    assert tags(note) <= {*("h1", "h2", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "em", "strong")}
    with cleaned_output():
        print_rows([{"folder": "x", f"key{TITLE}[red]": 1}], ["folder", f"key{TITLE}[red]"], "table")
    said = capsys.readouterr().out
    assert "[red]" in said
    assert "\x1b" not in said


def test_a_page_and_its_markdown_show_text_as_text(tmp_path: Path) -> None:
    """Of every field that a stranger's folder has."""
    folder = make_sweep(tmp_path / "sweep", question=HOSTILE)
    write_study(folder, replace(read_study(folder), name=f"name {HOSTILE}"))
    facts = {"error": f"ValueError: {HOSTILE}", "status": "failed", "overrides": [f"x={HOSTILE}"], "device": HOSTILE}
    facts |= {"class_names": [HOSTILE], "git_commit": HOSTILE}
    failed = make_run(folder / f"12_{HOSTILE.replace('/', '')}", 0.1, init=HOSTILE, **facts)
    (failed / "train.log").write_text(f"```\n{HOSTILE}\r<script>\n")
    make_run(folder / "13_x", 0.9, init=HOSTILE, class_names=[HOSTILE], packages={HOSTILE: HOSTILE}, seed=7)
    (folder / "14_x").mkdir()
    (folder / "14_x" / "run.json").write_text("{<script>")
    page = write_report(folder).read_text()
    assert page.count("<script>") == 2  # plotly.js and the page's own
    assert not tags(re.sub(r"(?s)<script>.*?</script>", "", page)) & {"img", "a", "b"}
    rendered = RENDER((folder / "report.md").read_text())
    allowed = {"h1", "h2", "h3", "p", "strong", "em", "ul", "li", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}
    assert tags(rendered) <= allowed
    assert "<pre><code>```" in rendered
    for template in TEMPLATES.iterdir():
        assert "|safe" not in template.read_text()
