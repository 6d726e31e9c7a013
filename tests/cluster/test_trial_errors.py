from __future__ import annotations

from pathlib import Path

import pytest
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from cluster.tune import DRIVER_RESTARTS, _TellErrors


class Told:
    """In place of the searcher; a whole sweep would need 21 dead processes for this."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    def tell_error(self, trial_id: str, reason: str) -> None:
        self.errors.append((trial_id, reason))


@pytest.mark.parametrize("times", [DRIVER_RESTARTS + 1, DRIVER_RESTARTS + 2])
def test_a_trial_that_tune_gives_up_is_told_with_the_last_line_of_its_error(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It lies in the folder of a Ray session, of which there is none here.
    monkeypatch.setattr(Trial, "local_path", str(tmp_path))
    trial = Trial("none", stub=True, trial_id="abc", storage=StorageContext(tmp_path, "tune"))
    for _ in range(times):
        trial.handle_error(OSError("Traceback\nFileNotFoundError: no such folder"))
    told = Told()
    _TellErrors(told).on_trial_error(0, [], trial)
    assert told.errors == [("abc", f"FileNotFoundError: no such folder ({times} times)")]
