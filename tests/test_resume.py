"""Which folder a run goes on in, and when it may not."""

import json
from pathlib import Path

import pytest

from src.cli import prepare
from src.errors import ConfigError
from src.resume import find_previous
from src.run_folder import RunFolder, is_locked


@pytest.mark.parametrize("saved", [True, False])
def test_a_folder_that_somebody_works_in_is_refused_before_anything_else(tmp_path: Path, saved: bool) -> None:
    folder = tmp_path / "run"
    _alive = RunFolder(folder)
    if saved:
        (folder / "checkpoints" / "last.pt").touch()
    launch, config = prepare("config", [f"training.resume='{folder}'"])
    with pytest.raises(ConfigError, match=r"another process is training in this folder; wait for it or use another$"):
        find_previous(config, launch)


def test_asking_makes_no_file(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "nobody")
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_save_before_is_enough_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill may come after `last.pt` was put aside and before the new one took its place."""
    monkeypatch.chdir(tmp_path)
    launch, config = prepare("config", ["name=x", "training.resume=auto"])
    folder = Path("outputs") / "x" / "run"
    (folder / "checkpoints").mkdir(parents=True)
    facts = {"status": "failed", "short_id": launch.short_id, "config": launch.config}
    (folder / "run.json").write_text(json.dumps(facts))
    assert find_previous(config, launch) is None
    (folder / "checkpoints" / "last_previous.pt").touch()
    assert find_previous(config, launch) == folder
