"""Sends what runs should hold to MLflow, from a thread of its own.

What waits is one update a run: news of it is gathered, and grows while MLflow is away. Nothing of
it is kept on disk, for it can be made again from the sweep's own files, which are the truth.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence

from cluster.mlflow_runs import MlflowRuns, connect, may_pass
from cluster.run_contents import Contents
from cluster.scrubbed import scrubbed

GATHER_SECONDS = 1.0  # news is gathered so long and sent together
RETRY_SECONDS = 1.0  # after a failure; twice as long after each more, up to
RETRY_SECONDS_MOST = 10.0
ORDER = ("sweep", "stage", "trial")  # a run's parent comes before it, and so does what it links

log = logging.getLogger(__name__)

Key = tuple[str, str]  # a run's kind and key


class Sender:
    """One thread, the only one that talks to MLflow; any may `put`."""

    def __init__(
        self, uri: str, sweep: str, sweep_id: str | None, artifact_root: str | None
    ) -> None:
        self._where = uri, sweep, sweep_id, artifact_root
        self.shown = scrubbed(uri)
        self.runs: MlflowRuns | None = None  # once MLflow has answered
        self.answered = threading.Event()
        self.tried = threading.Event()  # all that waited first was sent, or could not be
        self.error: Exception | None = None  # why the last round failed
        self.refused = 0  # updates that MLflow will never take
        self._views: tuple[Sequence[str], Sequence[str]] = ((), ())
        self._lock = threading.Lock()
        self._put: dict[Key, Contents] = {}  # by others, until the thread takes it
        self._batch: dict[Key, Contents] = {}  # the thread's own
        self._doubtful: set[Key] = set()  # MLflow may hold what it failed to confirm
        self._twins: set[Key] = set()  # runs that it may have made twice
        self._blame: Counter[Key] = Counter()  # failures while MLflow answered all else
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self, datasets: Sequence[str], varied: Sequence[str]) -> None:
        """Begin; see `MlflowRuns.describe_experiment` for the arguments."""
        self._views = datasets, varied
        self._thread.start()

    def put(self, contents: Contents) -> None:
        """To be sent soon; returns at once."""
        key = contents.kind, contents.key
        with self._lock:
            self._put[key] = _joined(self._put.get(key), contents)
        self._news.set()

    def waiting(self) -> int:
        """How many runs MLflow lacks something of."""
        with self._lock:
            return len(self._put.keys() | self._batch.keys())

    def status(self, kind: str, key: str) -> str | None:
        """That of the run once all is sent, as far as it is known here."""
        with self._lock:
            held = self._put.get((kind, key)) or self._batch.get((kind, key))
        run = held or (self.runs.get(kind, key) if self.runs else None)
        return run.status if run else None

    def wait(self, seconds: float, away_seconds: float) -> None:
        """Until all is sent, for at most `seconds`, `away_seconds` where nothing can be sent."""
        end, away = time.monotonic() + seconds, time.monotonic() + away_seconds
        self._hurry.set()
        self._news.set()
        while (self.waiting() or self._twins) and time.monotonic() < end:
            if self.error is None:
                away = time.monotonic() + away_seconds
            if time.monotonic() > away:
                break
            time.sleep(0.02)
        self._hurry.clear()

    def _run(self) -> None:
        pause = RETRY_SECONDS
        while True:
            self._news.wait()
            if self.runs is not None:
                self._hurry.wait(GATHER_SECONDS)
            self._news.clear()
            while not self._round():
                if self._hurry.is_set():
                    time.sleep(RETRY_SECONDS)
                else:
                    self._hurry.wait(pause)
                pause = min(2 * pause, RETRY_SECONDS_MOST)
            pause = RETRY_SECONDS

    def _round(self) -> bool:
        """Send all that waits. False: it is to be tried again."""
        with self._lock:
            for key, contents in self._put.items():
                self._batch[key] = _joined(self._batch.get(key), contents)
            self._put = {}
        try:
            runs = self.runs or self._open()
            for key in sorted(self._batch, key=self._turn):
                self._write(runs, key)
            if self._hurry.is_set():
                for key in list(self._twins):
                    runs.read_again(*key)
                    self._twins.discard(key)
        except Exception as error:  # whatever it is, it must not end the training
            if self.error is None:
                log.warning("MLflow at %s: %s; it is sent later", self.shown, scrubbed(error))
            self.error = error
        else:
            if self.error is not None:
                log.warning("MLflow at %s has all that it lacked", self.shown)
            self.error = None
        self.tried.set()
        return self.error is None

    def _open(self) -> MlflowRuns:
        uri, sweep, sweep_id, artifact_root = self._where
        parent = "sweep", sweep
        client = connect(uri)
        if self.answered.is_set():  # an earlier try may have made the parent without knowing
            self._twins.add(parent)
        self.answered.set()
        runs = MlflowRuns(client, sweep, sweep_id, artifact_root)
        runs.describe_experiment(*self._views)
        runs.write(self._batch[parent])
        with self._lock:
            del self._batch[parent]
        self.runs = runs
        return runs

    def _turn(self, key: Key) -> tuple[int, int]:
        """What MLflow cannot take, though it answers, lets all else pass.

        Except the trials that stand on it: one that has ended in MLflow has all its stages there.
        """
        stages = self._batch[key].stages.values() if key[0] == "trial" else ()
        blame = max([self._blame[key], *(self._blame["stage", stage] for stage in stages)])
        return blame, ORDER.index(key[0])

    def _write(self, runs: MlflowRuns, key: Key) -> None:
        again = key in self._doubtful
        if again:
            runs.read_again(*key)
        try:
            runs.write(self._batch[key])
        except Exception as error:
            if may_pass(error):
                self._doubtful.add(key)
                self._blame[key] += again
                if runs.get(*key) is None:
                    self._twins.add(key)
                raise
            log.warning("MLflow at %s took no update: %s", self.shown, scrubbed(error))
            self.refused += 1
        self._doubtful.discard(key)
        del self._blame[key]
        with self._lock:
            del self._batch[key]


def _joined(before: Contents | None, contents: Contents) -> Contents:
    return contents if before is None else before.followed_by(contents)
