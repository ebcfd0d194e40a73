"""What a run or a sweep left is read as somebody else's: one line names file and field, and nothing outside is touched."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import make_run, make_sweep
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.composing import compose_checked
from src.durable import write_json
from src.errors import DataError, UserError
from src.evaluation import build_split
from src.events import EventFile
from src.recorder import read_rows
from src.run_folder import read_run
from src.runs import compare, diff, explain, listing, report
from src.stored_config import read_stored_config
from src.stored_evaluations import Evaluation, pack, read_evaluation, write_evaluation
from src.stored_json import MOST_OF_RUN, MOST_WORDS, read_json
from src.studies.ledger import note, read_events, read_jobs, read_study
from src.studies.reading import Run, read_runs
from src.studies.report.differences import DIFFERENCES, Differences, Frame, write_differences
from src.studies.report.page import write_report
from src.studies.report.saving import sweeps_in

DEEP = "[" * 100_000


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


# --- run.json --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"status": ', "not readable as JSON"),
        (DEEP, "not readable as JSON"),
        ('{"config": ' + DEEP, "not readable as JSON"),
        ('{"error": "\\ud800"}', "not readable as JSON"),
        (b'{"error": "\xff"}', "not readable as JSON"),
        ("[1]", r"should be an object \(given: \[1\]\)"),
        ('{"status": "' + "x" * MOST_OF_RUN + '"}', f"larger than {MOST_OF_RUN} bytes"),
        ('{"best_scores": [1]}', r"best_scores: should be an object \(given: \[1\]\)"),
        ('{"best_scores": {"val/miou": "x"}}', r"best_scores\.val/miou: should be a valid number \(given: 'x'\)"),
        ('{"best_score": 1e308}', r"best_score: should be less than or equal to 10{100} \(given: 1e\+308\)"),
        ('{"parameters": "many"}', r"parameters: should be a valid integer \(given: 'many'\)"),
        ('{"config": {"seed": "x"}}', r"config\.seed: should be a valid integer \(given: 'x'\)"),
        ('{"config": 5}', r"config: should be an object \(given: 5\)"),
        ('{"overrides": ' + json.dumps(["x"] * 20_000) + "}", f"overrides: List should have at most {MOST_WORDS} items"),
        ('{"class_names": 5}', "class_names: should be a valid array"),
        ('{"packages": {"torch": 2}}', r"packages\.torch: should be a valid string"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_run_json_that_does_not_fit_is_one_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/run\.json: {message}") as caught:
        read_run(written(tmp_path, "run.json", text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_run_json_that_fits_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_run(tmp_path / "nowhere") == {}
    facts = json.loads((make_run(tmp_path / "run", 0.5) / "run.json").read_text()) | {"of a later version": [{"a": None}]}
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    assert read_run(tmp_path / "run") == facts
    write_json(tmp_path / "run" / "run.json", {"error": "caf\udce9.png: damaged", "best_score": float("nan")})  # a name of bytes
    assert read_run(tmp_path / "run") == {"error": "caf?.png: damaged", "best_score": None}


def test_every_run_of_the_project_still_reads() -> None:
    runs, problems = read_runs(Path(__file__).parent.parent / "experiments")
    assert len(runs) > 100
    assert problems == []
    assert all(isinstance(run.seed, int) and len(run.rows) == run.rows[-1]["epoch"] for run in runs if run.rows)


def test_an_empty_run_json_is_listed(tmp_path: Path) -> None:
    (run,), problems = read_runs(written(tmp_path, "a/run.json", "{}"))
    assert (run.status, problems) == ("unknown", [])


def test_a_run_that_does_not_fit_is_left_out_of_tables_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", 0.5)
    make_run(tmp_path / "b", 0.25, best_scores={"val/miou": "x"})
    for command in (listing.main, compare.main):
        command([str(tmp_path)])
        printed = capsys.readouterr()
        assert ("0.5000" if command is listing.main else "50.0") in printed.out
        (line,) = (line for line in printed.err.splitlines() if "left out" in line)
        assert f"{tmp_path}/b/run.json: best_scores.val/miou: should be a valid number" in line


def test_twenty_thousand_overrides_are_refused_at_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 0.5, overrides=["seed=0"] * 20_000)
    with pytest.raises(UserError, match=r"run\.json: overrides: List should have at most 1000 items"):
        explain.main(["optimizer.lr", f"run={run}"])


# --- metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"epoch,val/miou\n1,\xff\n", b'epoch,val/miou\n1,"' + b"x" * 200_000 + b'"\n'])
def test_a_table_that_is_none_is_one_line(content: bytes, tmp_path: Path) -> None:
    run = Run(written(tmp_path, "metrics.csv", content), {})
    with pytest.raises(UserError, match=rf"^{tmp_path}/metrics\.csv: not readable as CSV"):
        _ = run.rows


def test_a_cell_is_a_number_or_none(tmp_path: Path) -> None:
    written(tmp_path, "metrics.csv", "epoch,val/miou\n1,0.5,more\nx\n3,1e999\n4,\n")
    rows = Run(tmp_path, {}).rows
    np.testing.assert_array_equal([row["epoch"] for row in rows], [1, np.nan, 3, 4])
    np.testing.assert_array_equal([row["val/miou"] for row in rows], [0.5, np.nan, np.nan, np.nan])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"val/miou": 0.5}', "line 2: lacks epoch"),
        ("5", r"line 2: should be an object \(given: 5\)"),
        (DEEP, "line 2: not readable as JSON"),
        ('{"epoch": 2, "val/miou": "x"}', r"line 2: val/miou\S*: should be a valid"),
        ('{"epoch": 2}', "line 2: has other tags than line 1"),
    ],
    ids=lambda value: value[:20],
)
def test_a_line_of_metrics_that_does_not_fit_is_one_line(line: str, message: str, tmp_path: Path) -> None:
    written(tmp_path, "metrics.jsonl", f'{{"epoch": 1, "val/miou": null}}\n{line}\n{{"epoch": 3, "val/mi')
    with pytest.raises(UserError, match=rf"^{tmp_path}/metrics\.jsonl: damaged \({message}"):
        read_rows(tmp_path)


# --- sweeps ----------------------------------------------------------------------------------------------------------


def changed_study(sweep: Path, change: Callable[[dict[str, Any]], object]) -> None:
    facts = json.loads((sweep / "study.json").read_text())
    change(facts)
    (sweep / "study.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts["jobs"][0].update(name="../.."), r"jobs\.0\.name: String should match pattern"),
        (lambda facts: facts["jobs"][1].update(name="/etc"), r"jobs\.1\.name: String should match pattern"),
        (lambda facts: facts["jobs"][1].update(name=".."), r"jobs\.1\.name: String should match pattern"),
        (lambda facts: facts.update(jobs=5), "jobs: should be a valid array"),
        (lambda facts: facts["jobs"].append(5), r"jobs\.12: should be an object"),
        (lambda facts: facts["jobs"][2].pop("overrides"), r"lacks jobs\.2\.overrides"),
        (lambda facts: facts["jobs"][2].update(planned={"seconds": "x"}), r"jobs\.2\.planned\.seconds: should be a valid number"),
        (lambda facts: facts.pop("words"), "lacks words"),
    ],
)
def test_a_study_that_does_not_fit_is_one_line(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep")
    changed_study(sweep, change)
    for command in (lambda: read_study(sweep), lambda: write_report(sweep)):
        with pytest.raises(UserError, match=rf"^{sweep}/study\.json: {message}"):
            command()


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ('{"job": {}, "status": "running"}', r"job: should be a valid integer \(given: {}\)"),
        ('{"job": 0, "status": "finished", "seconds": "x"}', "seconds: should be a valid number"),
        ("5", "should be an object"),
    ],
)
def test_an_event_that_does_not_fit_is_one_line(event: str, message: str, tmp_path: Path) -> None:
    note(tmp_path, 0, "running")
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write(f'{{"torn\n{DEEP}\n{event}\n')
    with pytest.raises(UserError, match=rf"^{tmp_path}/ledger\.jsonl line 4: {message}"):
        read_events(tmp_path)


# --- evaluations -----------------------------------------------------------------------------------------------------


def made_evaluation(seed: int = 0) -> Evaluation:
    names = ["a", "b", "c"]
    facts = {
        **{"split": "val", "checkpoint": "best", "size": "training", "class_names": ["x", "y"], "names": names},
        **{"scores": {"miou": 0.5}, "protocol": {"split": "val"}, "protocol_fingerprint": "01234567"},
    }
    return Evaluation(names, ["video"] * 3, np.random.default_rng(seed).integers(0, 99, (3, 2, 2)), facts)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((3, 2, 3), np.int64), r"confusion is int64 \[3, 2, 3\]"),
        (np.zeros((2, 2, 2), np.int64), r"confusion is int64 \[2, 2, 2\]"),
        (np.zeros((3, 1, 1), np.int64), r"confusion is int64 \[3, 1, 1\]"),
        (np.full((3, 2, 2), -1), r"confusion is int64 \[3, 2, 2\]; .*none negative"),
        (np.zeros((3, 2, 2)), "confusion is float64"),
    ],
)
def test_counts_that_are_none_are_one_line(counts: np.ndarray, message: str, tmp_path: Path) -> None:
    file = write_evaluation(tmp_path, made_evaluation())
    names = np.array(["a", "b", "c"])
    file.with_suffix(".npz").write_bytes(pack(confusion=counts, names=names, sequences=names))
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in facts.items() if key != "counts_sha256"}))  # as an older one
    with pytest.raises(UserError, match=rf"^{file.with_suffix('.npz')}: not of an evaluation \({message}"):
        read_evaluation(file)


def test_every_changed_byte_of_the_counts_is_noticed(tmp_path: Path) -> None:
    file = write_evaluation(tmp_path, made_evaluation())
    good, packed = file.with_suffix(".npz").read_bytes(), file.with_suffix(".npz")
    for place in range(len(good)):
        packed.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(UserError):
            read_evaluation(file)
    packed.write_bytes(good)
    read_evaluation(file)


def test_counts_of_another_checkpoint_of_the_same_frames_are_noticed(tmp_path: Path) -> None:
    file = write_evaluation(tmp_path, made_evaluation())
    other = write_evaluation(written(tmp_path, "other/x", "").joinpath("other"), made_evaluation(1))
    file.with_suffix(".npz").write_bytes(other.with_suffix(".npz").read_bytes())
    with pytest.raises(UserError, match="its two files do not belong together"):
        read_evaluation(file)


# --- the configuration of a run, and data that it would make ---------------------------------------------------------

SMALL = ("num_train=2", "num_val=1", "num_test=1", "render_size=[48,64]")


def stored(folder: Path, root: str, **changes: Any) -> Path:
    words = ["dataset=streets", "threads=1", *(f"dataset.{word}" for word in SMALL)]
    tree: Any = OmegaConf.to_container(compose_checked("config", words)[0], resolve=True)
    tree["dataset"]["root"] = root
    written(folder, "config.yaml", OmegaConf.to_yaml(OmegaConf.create(tree | changes)))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "threads=0; allowed are whole numbers from 1"),
        ({"seed": -1}, "seed=-1; allowed are whole numbers from 0"),
        ({"loader": {"batch_size": 0, "num_workers": 0, "drop_last": False}}, "loader.batch_size=0; allowed"),
        ({"loader": {"batch_size": 2}}, r"lacks loader\.drop_last, loader\.num_workers"),
        ({"model": 5}, "model and dataset must be groups"),
    ],
)
def test_a_stored_configuration_out_of_range_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/run/config\.yaml: {message}"):
        read_stored_config(stored(tmp_path / "run", "data/streets", **changes))


def test_scoring_a_foreign_run_makes_no_data_outside_data_or_a_root_that_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    for root in (str(tmp_path / "etc"), "data/../../etc", "elsewhere", "."):
        config = read_stored_config(stored(tmp_path / "run", root))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError, match="not there, and not made outside data/ unless you name the folder; give root=FOLDER"):
            build_split(config, "val")
        assert sorted(tmp_path.rglob("*")) == before
    typed = read_stored_config(stored(tmp_path / "run", str(tmp_path / "etc")), root=str(tmp_path / "typed"))
    assert len(build_split(typed, "val")) == 1
    assert len(build_split(read_stored_config(stored(tmp_path / "run", "data/streets")), "val")) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "run", "typed"]
    there = read_stored_config(stored(tmp_path / "run", str(tmp_path / "typed")))  # outside data/, but made before
    assert len(build_split(there, "val")) == 1


# --- links -----------------------------------------------------------------------------------------------------------


def linked(folder: Path, name: str, outside: Path) -> None:
    """The file, or folder, is outside, and a link leads there."""
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)


@pytest.mark.parametrize("name", ["run.json", "metrics.csv", "diff.patch", "train.log"])
def test_a_link_out_of_a_run_is_not_followed(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "run", 0.5, status="failed" if name == "train.log" else "finished", error="no room")
    for made in ("diff.patch", "train.log"):
        (run / made).write_text("a secret of this machine")
    other = make_run(tmp_path / "study" / "other", 0.5)
    read: Callable[[], object] = {
        "run.json": lambda: read_run(run),
        "metrics.csv": lambda: Run(run, {}).rows,
        "diff.patch": lambda: diff.main([str(run), str(other)]),
        "train.log": lambda: write_report(tmp_path / "study"),
    }[name]
    linked(run, name, tmp_path / "outside")
    with pytest.raises(UserError, match=rf"^{run}/{name}: leads out of {run}, and is not followed"):
        read()
    assert not list((tmp_path / "study").rglob("report.*"))
    (run / name).unlink()
    (run / "inside").write_text((tmp_path / "outside").read_text())
    (run / name).symlink_to("inside")
    read()


@pytest.mark.parametrize("name", [".lock", "run.json", "metrics.csv", "train.log"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "run", 0.5, status="running")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    listing.main([str(tmp_path / "study")])
    write_report(tmp_path / "study")


def test_a_link_in_place_of_evaluations_is_neither_read_nor_written(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "run", 0.5), make_run(tmp_path / "other", 0.5)
    file = write_evaluation(run, made_evaluation())
    write_evaluation(other, made_evaluation())
    linked(run, "evaluations", tmp_path / "outside")
    before = {path: path.read_bytes() for path in (tmp_path / "outside").iterdir()}
    for call in (lambda: write_evaluation(run, made_evaluation(1)), lambda: read_evaluation(file)):
        with pytest.raises(UserError, match="leads out of"):
            call()
    with pytest.raises(UserError, match="leads out of"):
        diff.main([str(run), str(other)])
    assert {path: path.read_bytes() for path in (tmp_path / "outside").iterdir()} == before


def test_links_to_sweeps_and_jobs_elsewhere_are_not_entered(tmp_path: Path) -> None:
    make_sweep(tmp_path / "outside")
    sweep = make_sweep(tmp_path / "study" / "sweep")
    (tmp_path / "study" / "link").symlink_to(tmp_path / "outside")
    assert sweeps_in(tmp_path / "study") == [sweep]
    assert len(read_runs(tmp_path / "study")[0]) == 12
    job = read_jobs(sweep)[3].folder
    linked(sweep, job.name, tmp_path / "job")
    assert len(read_runs(sweep)[0]) == 11
    with pytest.raises(UserError, match=rf"^{job}: leads out of {sweep}"):
        read_jobs(sweep)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"legend": [["Sky", "red;background:url(http://x)"]]}, r"legend\.0\.1"),
        ({"epochs": [1]}, "epochs"),
        ({"frames": [{"name": "a"}]}, r"frames\.0\.score_a"),
    ],
)
def test_what_the_best_two_differ_in_has_its_types(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    facts = {"pair": "", "labels": ["a", "b"], "runs": ["a", "b"], "epochs": [1, 1], "sentence": "", "num_frames": 3}
    written(tmp_path, DIFFERENCES, json.dumps(facts | {"frames": [], "legend": [["Sky", "#00ff00"]]}))
    read_json(tmp_path, DIFFERENCES, Differences)
    written(tmp_path, DIFFERENCES, json.dumps(facts | {"frames": [], "legend": []} | change))
    with pytest.raises(UserError, match=rf"^{tmp_path}/{DIFFERENCES}: .*{field}"):
        read_json(tmp_path, DIFFERENCES, Differences)


# --- pages and copies ------------------------------------------------------------------------------------------------


def test_a_folder_of_plain_runs_is_saved_and_has_its_page(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs" / name, score, seed=seed) for seed, (name, score) in enumerate([("a", 0.5), ("b", 0.25)])]
    frame = Frame("a", 0.5, 0.25, *["AAAA"] * 4)
    found = Differences("", ["a", "b"], ["a", "b"], [1, 1], "They differ.", 3, [frame], [("Sky", "#00ff00")])
    write_differences(tmp_path / "runs", found)
    report.main([str(tmp_path / "runs"), f"save={tmp_path / 'new' / 'copy'}"])
    saved = read_json(tmp_path / "new" / "copy", DIFFERENCES, Differences)
    assert saved == replace(found, frames=[replace(frame, image="", truth="")])
    for run in runs:
        copy = tmp_path / "new" / "copy" / run.name
        assert read_run(copy)["best_score"] == read_run(run)["best_score"]
        assert (copy / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    assert (tmp_path / "runs" / "report.html").is_file()
    write_report(tmp_path / "new" / "copy")  # and makes the same page again


def test_events_go_on_when_their_folder_was_removed(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    events = EventFile(tmp_path / "tensorboard", 1)
    events.add_scalar("lr", 0.5, 1)
    events.flush()
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.unlink()
    (tmp_path / "tensorboard").rmdir()
    events.add_scalar("lr", 0.25, 2)
    events.flush()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(point.step, point.value) for point in read.Scalars("lr")] == [(2, 0.25)]
    (tmp_path / "tensorboard").rename(tmp_path / "x")
    gone = tmp_path.rename(tmp_path.with_name("gone"))
    events.add_scalar("lr", 0.125, 3)
    with pytest.raises(OSError, match="No such file"):  # the run's own folder is not made again
        events.flush()
    gone.rename(tmp_path)
