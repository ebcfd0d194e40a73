"""The page of a study: its numbers, and how it behaves in a browser."""

import base64
import html
import json
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, DRIVER, LACKING, browser
from made_runs import SCORES, make_run, make_sweep

from src.cli import parse_arguments
from src.composing import prepare
from src.redaction import Redactor
from src.run_folder import Launch, short_hash
from src.runs import report as report_command
from src.studies.ledger import claim, note, read_events, read_jobs, read_study, write_study
from src.studies.reading import read_runs
from src.studies.report.differences import DIFFERENCES
from src.studies.report.page import command, write_report
from src.studies.report.saving import save_data
from src.studies.statistics.standing import standings
from src.sweep_command import read_command
from src.sweeping import check_points

MOST_BYTES, MOST_SECONDS = 6 * 2**20, 2.0


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_sweep(tmp_path_factory.mktemp("made") / "sweep")
    make_run(folder / "12_failed", 0.1, status="failed", channels=[4, 8], error="ValueError: <script>alert(1)</script>", seed=9)
    (folder / "12_failed" / "train.log").write_text("Traceback: <img src=x onerror=alert(1)>")
    write_report(folder)
    return folder


def rows_of(page: str) -> list[dict[str, object]]:
    return [json.loads(html.unescape(text)) for text in re.findall(r"<tr data-row='([^']*)'", page)]


def test_every_number_of_the_ranking_is_the_ledgers(sweep: Path) -> None:
    page = (sweep / "report.html").read_text()
    shown = {score for row in rows_of(page) for score in row["scores"].values()}  # type: ignore[attr-defined]
    assert shown == {job.score for job in read_jobs(sweep)}
    cells = [re.sub(r"<[^>]+>", " ", line) for line in re.findall(r"<tr data-row=.*?</tr>", page)]
    for (init, width), scores in SCORES.items():
        (line,) = [cell for cell in cells if f"channels={width}-{2 * width} init={init} " in cell]
        assert f" {100 * sum(scores) / 3:.1f} " in line


def test_the_first_lines_answer_the_question(sweep: Path) -> None:
    text = html.unescape((sweep / "report.html").read_text().partition('<div class="answer">')[2].partition("<h2>")[0])
    assert "First of 4 is channels=8-16 init=kaiming with 41.0 points (40.0, 42.0, 41.0; 3 seeds), " in text
    assert "; 3 seeds), distinguishable from 2 of the 3 others." in text
    assert "Best against worst value of each key, the others held the same: init 7.3 points, channels 3.7 points." in text
    assert "init=kaiming beats init=normal by 7.3 points" in text


@pytest.mark.parametrize(
    ("others", "lead"),
    [
        ([[0.1, 0.13, 0.11]], "distinguishable from the other."),
        ([[0.1, 0.13, 0.11], [0.2, 0.22, 0.23]], "distinguishable from all others."),
        ([[0.1, 0.13, 0.11], [0.41, 0.37, 0.39]], "distinguishable from 1 of the 2 others."),
        ([[0.41, 0.37, 0.39]], "which nothing here shows to be the best."),
        ([[0.1]], "which nothing here shows to be the best."),
    ],
)
def test_the_first_line_says_how_far_it_is_to_be_believed(tmp_path: Path, others: list[list[float]], lead: str) -> None:
    inits = ("kaiming", "normal", "xavier")
    for init, scores in zip(inits, ([0.4, 0.41, 0.42], *others), strict=False):
        for seed, score in enumerate(scores):
            make_run(tmp_path / f"{init}_{seed}", score, init=init, seed=seed)
    first = re.findall(r"\*\*(First of .*)\*\*", (write_report(tmp_path).with_suffix(".md")).read_text())
    assert first[0].endswith(f"; 3 seeds), {lead}")


def test_a_row_that_is_ahead_where_both_have_scores_is_not_counted_as_beaten(tmp_path: Path) -> None:
    """Paired by the two seeds that both have, the second is ahead."""
    for init, scores in {"kaiming": [0.30, 0.31, 0.50, 0.52, 0.55], "normal": [0.40, 0.412]}.items():
        for seed, score in enumerate(scores):
            make_run(tmp_path / f"{init}_{seed}", score, init=init, seed=seed)
    page = write_report(tmp_path).with_suffix(".md").read_text()
    assert "5 seeds), which nothing here shows to be the best.**" in page
    assert "init=normal beats init=kaiming by 10.1 points" in page


def test_what_all_rows_share_and_what_needs_no_network_stand_beside_the_ranking(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.3, init="kaiming", git_commit="abc", baselines={"majority_per_pixel": 0.167})
    make_run(tmp_path / "b", 0.2, git_commit="abc", git_dirty=True)
    html_page = write_report(tmp_path).read_text()
    page = (tmp_path / "report.md").read_text()
    for text in (page, re.sub(r"<[^>]+>", " ", html_page)):
        assert "Without a network, on the same images: majority per pixel 16.7." in text
        assert "abc; abc, with more that is not committed" in text
    shared = page.partition("### What all rows share")[2].partition("###")[0].split("\n- ")[1:]
    assert {line.strip().partition(": ")[0] for line in shared} == {
        "model._target_", "model.channels", "dataset.image_size", "training.epochs", "monitor.tag", "monitor.mode",
    }  # fmt: skip


def test_seeds_that_diverged_are_told_and_lead_nothing(tmp_path: Path) -> None:
    """One seed of kaiming survived and scores far above normal; of xavier none did."""
    lost = {"status": "failed", "error": "NonFiniteLossError: loss nan at step 7"}
    for seed in range(3):
        make_run(tmp_path / f"n{seed}", 0.3 + 0.01 * seed, seed=seed)
        make_run(tmp_path / f"k{seed}", 0.9, seed=seed, init="kaiming", **(lost if seed else {}))
        make_run(tmp_path / f"x{seed}", 0.9, seed=seed, init="xavier", **lost)
    page = write_report(tmp_path).read_text()
    markdown = (tmp_path / "report.md").read_text()
    told = "First of 3 is init=normal with 31.0 points (30.0, 31.0, 32.0; 3 seeds), which nothing here shows to be the best."
    for text in (page, markdown):
        assert told in text
        assert "init=kaiming: 2 of 3 seeds diverged." in text
        assert "init=xavier: 3 of 3 seeds diverged." in text
        assert "init=kaiming beats" not in text
    assert [(row["label"], row["mean"]) for row in rows_of(page)] == [
        ("init=normal", pytest.approx(0.31)),
        ("init=kaiming", 0.9),
        ("init=xavier", None),
    ]
    assert "| init=kaiming | 1 of 3 trained | 90.0 |" in markdown
    assert "| init=xavier | 0 of 3 trained | - | - | - | - |" in markdown
    assert "`python -m src.train -m model.init=xavier seed=0,1,2 study.again=true`" in markdown
    assert "Where the two best differ most" not in page


def test_it_answers_and_escapes(sweep: Path) -> None:
    page = (sweep / "report.html").read_text()
    before_charts = page.partition('<div class="charts">')[0]
    assert "Does &lt;b&gt;kaiming&lt;/b&gt; beat normal?" in before_charts
    assert "channels=8-16 init=kaiming beats channels=4-8 init=kaiming by 4.0 points" in before_charts
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "Traceback: &lt;img" in page
    markdown = (sweep / "report.md").read_text()
    assert "| channels=8-16 init=kaiming | 3 | 41.0 |" in markdown


def test_what_is_saved_makes_the_same_page(sweep: Path, tmp_path: Path) -> None:
    save_data(sweep, tmp_path / "saved")
    assert not [file for file in (tmp_path / "saved").rglob("*") if file.is_file() and "/somewhere/secret" in file.read_text()]
    assert sum(file.stat().st_size for file in (tmp_path / "saved").rglob("*") if file.is_file()) < 100_000
    again = write_report(tmp_path / "saved").read_text()
    assert rows_of(again) == rows_of((sweep / "report.html").read_text())
    told = [(folder / "report.md").read_text().partition("## Failures")[0] for folder in (tmp_path / "saved", sweep)]
    assert told[0] == told[1]


def test_what_is_saved_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    folder, root = make_sweep(tmp_path / "sweep"), "/home/me/my data/camvid"
    words = [f"dataset.root={root}", f"hydra.searchpath=['{tmp_path}']", "+dataset.cache=/home/me/cache", "seed=0,1"]
    words += [f"+model.weights='/home/me/{place}/best.pt'" for place in ("a", "b")]
    study = read_study(folder)
    study.jobs[0]["overrides"] = [*words[:3], "seed=0"]
    common = {"seed": 0, "dataset.root": root, "dataset.cache": "/home/me/cache"}
    write_study(folder, replace(study, words=words, common=common))
    note(folder, 1, "failed", error=f"{root}/train: no images; see '/home/me/repo/outputs/train.log' and/or --help")
    note(folder, 2, "finished", reused="/home/me/outputs/multirun/made/earlier/2_x")
    failed = make_run(folder / "12_x", 0.1, status="failed", error=f"DataError: {root}/val/1.png is damaged", overrides=words)
    facts = json.loads((failed / "run.json").read_text())
    facts["config"]["dataset"] |= {"root": root, "cache": "/home/me/cache"}
    facts["config"]["model"]["weights"] = "/home/me/a/best.pt"
    (failed / "run.json").write_text(json.dumps(facts))
    save_data(folder, tmp_path / "saved")
    texts = [file.read_text() for file in (tmp_path / "saved").rglob("*") if file.is_file()]
    assert len(texts) == 2 + 2 * 13
    assert not [text for text in texts for secret in ("/home", "/me/", "my data", str(tmp_path), "a machine") if secret in text]
    assert socket.gethostname() not in "".join(texts)
    saved = read_study(tmp_path / "saved")
    assert (saved.words[0], saved.jobs[0]["overrides"]) == ("seed=0,1", ["seed=0"])
    names = [f"{short_hash(f'/home/me/{place}/best.pt')}/best.pt" for place in ("a", "b")]
    assert saved.words[1:] == [f"+model.weights={name}" for name in names]
    assert json.loads((tmp_path / "saved" / "12_x" / "run.json").read_text())["config"]["model"]["weights"] == names[0]
    errors = [event["error"] for event in read_events(tmp_path / "saved") if "error" in event]
    assert errors == ["DATA/train: no images; see 'train.log' and/or --help"]
    assert json.loads((tmp_path / "saved" / "12_x" / "run.json").read_text())["error"] == "DataError: DATA/val/1.png is damaged"


@pytest.mark.parametrize("kind", ["nothing finished", "one run", "one key", "no number"])
def test_a_study_that_is_not_whole_still_has_a_page(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "some sweep"
    if kind == "nothing finished":
        make_run(folder / "0_a", 0.3, status="failed")
    elif kind == "one run":
        make_run(folder / "0_a", 0.3)
    elif kind == "one key":
        make_run(folder / "0_a", 0.3)
        make_run(folder / "1_a", 0.4, init="kaiming")
    else:
        make_run(folder / "0_a", 0.3)
        make_run(folder / "1_a", 0.4, init="kaiming", best_score=None)
    page = write_report(folder).read_text()
    said = {
        "nothing finished": "nothing can be said",
        "one run": "One configuration alone",
        "one key": "Nothing can be said about",
        "no number": "init=kaiming: 1 of 1 seed diverged.",
    }
    assert said.get(kind, "One configuration alone") in page


def test_a_row_can_be_run_again_whatever_its_words_hold(tmp_path: Path) -> None:
    """What a shell makes of the command is what Hydra was given."""
    words = ["model.channels=[4,8]", "dataset.root='/my data/x'", 'name="it\'s"', "optimizer.lr=0.1", "model.weights=$HOME;x"]
    left_out = [
        "training.resume=auto",
        "hydra.run.dir='x'",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "hydra.sweep.dir=y",
    ]
    make_run(tmp_path / "a", 0.3, overrides=[*words, *left_out])
    (table,) = standings(read_runs(tmp_path)[0])
    told = subprocess.run(["sh", "-c", f"printf '%s\\n' {command(table.rows[0])}"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["python", "-m", "src.train", *words]


STUDY_FILE = """# @package _global_
study:
  question: Which?
  listed:
    - {model.init: normal, optimizer.lr: 0.03}
    - {model.init: kaiming, optimizer.lr: 0.1}
  crossed:
    model.channels: ["[4,8]", "[8,16]"]
  seeds: [3, 4]
threads: 1
optimizer:
  momentum: 0.9
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", [["study=mine"], ["model.init=normal,kaiming", "seed=3,4"], ["model.init=normal,kaiming"]])
def test_the_printed_words_are_those_very_runs_and_no_others(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, first: list[str]
) -> None:
    """Jobs as a sweep's children have them; what a shell makes of each row's command is read as the command line is."""
    (tmp_path / "my conf" / "study").mkdir(parents=True)
    (tmp_path / "my conf" / "study" / "mine.yaml").write_text(STUDY_FILE)
    added = f"hydra.searchpath=['{tmp_path / 'my conf'}']"
    words = [word for word in tiny_overrides if not word.startswith(("model.channels", "threads"))]
    points, launches = read_sweep(monkeypatch, "-m", *words, *first, added)
    for number, (point, launch) in enumerate(zip(points, launches, strict=True)):
        own = [word for word in point if not word.startswith("hydra.")]
        folder = make_run(tmp_path / "sweep" / str(number), 0.3, overrides=[*own, added, f"hydra.run.dir='{number}'"])
        facts = {"config": launch.config, "short_id": launch.short_id}
        (folder / "run.json").write_text(json.dumps(json.loads((folder / "run.json").read_text()) | facts))
    (table,) = standings(read_runs(tmp_path / "sweep")[0])
    assert len(table.rows) == {"study=mine": 4}.get(first[0], 2)
    for row in table.rows:
        printed = f"printf '%s\\n' {command(row).removeprefix('python -m src.train ')}"
        typed = subprocess.run(["sh", "-c", printed], capture_output=True, text=True, check=True).stdout.splitlines()
        again = read_sweep(monkeypatch, *typed)[1] if typed[0] == "-m" else [prepare("config", typed)[0]]
        assert [launch.short_id for launch in again] == [run.facts["short_id"] for run in row.runs]
        assert [launch.config for launch in again] == [run.facts["config"] for run in row.runs]


def read_sweep(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[list[list[str]], list[Launch]]:
    """As `python -m src.train` reads it."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    found = check_points(read_command(parse_arguments().overrides).words, lambda _: None, Redactor([]))
    return found[0], found[1]


def test_the_command(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_command.main([str(sweep), f"output={tmp_path / 'page'}", f"save={tmp_path / 'data'}"])
    assert str(tmp_path / "page" / "report.html") in capsys.readouterr().out
    assert (tmp_path / "data" / "ledger.jsonl").is_file()
    with pytest.raises(ValueError, match="no such key"):
        report_command.main([str(sweep), "outptu=x"])
    with pytest.raises(ValueError, match="one study"):
        report_command.main([])


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"frames": [1]}', b"\xff"])
def test_what_is_damaged_is_not_saved(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "sweep" / "0_a", 0.3)
    (tmp_path / "sweep" / DIFFERENCES).write_bytes(content)
    report_command.main([str(tmp_path / "sweep"), f"save={tmp_path / 'saved'}"])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if "is damaged" in line] == told[:1]
    assert not (tmp_path / "saved" / DIFFERENCES).exists()
    assert (tmp_path / "saved" / "0_a" / "run.json").is_file()


def big_sweep(folder: Path) -> Path:
    for number in range(36):
        run = make_run(folder / f"{number}_x", 0.3 + number / 100, seed=number % 3, channels=[4 + number // 3, 8])
        lines = (run / "metrics.csv").read_text().splitlines()
        epochs = [re.sub(r"^1,", f"{epoch},", lines[1]) for epoch in range(1, 51)]
        (run / "metrics.csv").write_text("\n".join([lines[0], *epochs]) + "\n")
    write_report(folder)
    return folder


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=LACKING)
def test_a_large_page_opens_fast(tmp_path: Path) -> None:
    page = big_sweep(tmp_path / "thirty-six runs") / "report.html"
    assert page.stat().st_size < MOST_BYTES
    with browser() as window:
        window.open("about:blank")
        seconds = [window.open(page.as_uri()) for _ in range(3)]
    print(f"{page.stat().st_size / 2**20:.2f} MiB for 36 runs, opened in {min(seconds):.2f} s")
    assert min(seconds) < MOST_SECONDS, seconds


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=LACKING)
def test_in_a_browser(sweep: Path) -> None:
    with browser() as window:
        window.open("about:blank")
        window.log("performance")
        window.open((sweep / "report.html").as_uri())
        shown = "[...document.querySelectorAll('table.ranking tbody tr')].filter(row => !row.hidden)"
        first = f"return {shown}.map(row => row.cells[0].textContent)"
        ranked = window.run(first)
        assert len(ranked) == 4
        window.run("document.querySelectorAll('table.ranking th')[6].click()")  # parameters, most first
        window.run("document.querySelectorAll('table.ranking th')[6].click()")  # fewest first
        by_size = window.run(first)
        assert by_size[0].startswith("channels=4-8")
        assert by_size[-1].startswith("channels=8-16")
        typing = "const i = document.querySelector('input.filter'); i.value = 'kaiming'; i.dispatchEvent(new Event('input'))"
        window.run(typing)
        assert sorted(window.run(first)) == ["channels=4-8 init=kaiming", "channels=8-16 init=kaiming"]
        assert window.run("return document.querySelectorAll('.hoverlayer .hovertext').length") == 0
        window.run("document.querySelector('.nsewdrag').scrollIntoView({block: 'center'})")
        place = "const r = document.querySelector('.nsewdrag').getBoundingClientRect();"
        box = window.run(f"{place} return [r.x + r.width / 4, r.y + r.height / 4]")
        window.move_to(*box)
        window.run("return new Promise(done => setTimeout(done, 300))")
        assert window.run("return document.querySelectorAll('.hoverlayer .hovertext').length") > 0
        assert [entry for entry in window.log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
        asked = [json.loads(entry["message"])["message"] for entry in window.log("performance")]
        addresses = {m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"}
        assert {address.partition(":")[0] for address in addresses} <= {"file", "data", "blob"}


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=LACKING)
def test_labels_of_charts_are_text(tmp_path: Path) -> None:
    """Which plotly.js would take for HTML."""
    hostile = "<a href='http://evil'>x</a> <b>y</b> &lt;"
    make_run(tmp_path / "a", 0.3, init=hostile)
    make_run(tmp_path / "b", 0.2)
    with browser() as window:
        window.open(write_report(tmp_path).as_uri())
        labels = window.run("return [...document.querySelectorAll('.legendtext')].map(e => e.textContent)")
        assert f"init={hostile}" in labels
        assert window.run("return document.querySelectorAll('a').length") == 0


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=LACKING)
def test_light_dark_phone_and_paper(sweep: Path) -> None:
    with browser() as window:
        window.open((sweep / "report.html").as_uri())
        for scheme in ("light", "dark"):
            window.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            places = "['body', '.answer', 'table.ranking td', '.note', 'code', 'figcaption, h2']"
            inks = window.run(f"return {places}.map(p => getComputedStyle(document.querySelector(p)).color)")
            paper = window.run("return getComputedStyle(document.body).backgroundColor")
            assert (brightness(paper) > 0.5) == (scheme == "light")
            for ink in inks:
                low, high = sorted((brightness(ink), brightness(paper)))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, ink, paper)  # WCAG 2, AA
        window.tell("Emulation.setEmulatedMedia", features=[])
        window.tell("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
        window.open((sweep / "report.html").as_uri())
        assert window.run("return document.documentElement.scrollWidth") == 390
        assert window.run("return document.querySelector('.answer').getBoundingClientRect().top") < 844
        window.tell("Emulation.clearDeviceMetricsOverride")
        window.tell("Emulation.setEmulatedMedia", media="print")
        hidden = "return [...document.querySelectorAll('input, details pre, details td')].map(e => e.checkVisibility())"
        shown = window.run(hidden)
        assert shown[0] is False  # the filter
        assert len(shown) > 4
        assert all(shown[1:])  # what is folded on a screen
        pdf = base64.b64decode(window.tell("Page.printToPDF")["data"])
        assert pdf.startswith(b"%PDF")


def brightness(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, WCAG 2."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_running_job_and_one_that_failed_before_it_was_a_run_are_there(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "sweep")
    for name in read_jobs(folder)[:2]:
        shutil.rmtree(name.folder)
    for status in ("running", "failed"):
        note(folder, 1, status, error="data/train: <none> there" if status == "failed" else None)
    failed = read_jobs(folder)[1]
    failed.folder.mkdir()
    (failed.folder / "train.log").write_text("Traceback & all")
    with claim(folder, 0):
        note(folder, 0, "running")
        page = write_report(folder).read_text()
    assert re.findall(r"<span>(\d+ \w+)</span>", page) == ["1 running", "1 failed", "10 finished"]
    told = page.partition("<h2>Failures</h2>")[2]
    assert f"{failed.name}: data/train: &lt;none&gt; there</summary><pre>Traceback &amp; all</pre>" in told
    assert "Traceback & all" in (folder / "report.md").read_text().partition("## Failures")[2]
    write_report(folder)
    assert "1 interrupted" in (folder / "report.html").read_text()  # whose sweeper is gone
