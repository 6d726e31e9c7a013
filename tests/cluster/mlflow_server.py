"""A real MLflow server in a process of its own, to be killed; and a slow line to it."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from tests.ports import free_port


class MlflowServer:
    """At `address`, on the database `store`; it starts again at the same address."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store, self.port = folder, store, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "mlflow.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                    *("--artifacts-destination", str(self.folder / "served")),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "MLFLOW_BACKEND_STORE_URI": self.store,
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                },
            )
        for _ in range(480):
            assert self.process.poll() is None, (self.folder / "mlflow.log").read_text()[-3000:]
            with suppress(OSError):
                urlopen(f"{self.address}/health", timeout=1).close()
                return
            time.sleep(0.25)
        raise AssertionError(f"MLflow does not answer: {self.folder / 'mlflow.log'}")

    def signal(self, number: signal.Signals) -> None:
        """To it and all that it started."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


class SlowLine:
    """Hands bytes on to `port`; what a client sends arrives `delay` seconds later, even if the
    client has given up. `late` counts the connections on which that is still under way."""

    def __init__(self, port: int) -> None:
        self.delay, self.late, self._port = 0.0, 0, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        slow = False
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as far:
            answering = threading.Thread(target=self._answer, args=(far, client), daemon=True)
            answering.start()
            threading.Thread(target=self._hear, args=(client, under_way), daemon=True).start()
            while True:
                due, part = under_way.get()
                if self.delay and not slow:
                    self.late, slow = self.late + 1, True
                time.sleep(max(0.0, due - time.monotonic()))
                if not part:
                    break
                far.sendall(part)
            far.shutdown(socket.SHUT_WR)
            answering.join()  # the server answers before it closes
        self.late -= slow

    def _hear(
        self, client: socket.socket, under_way: queue.SimpleQueue[tuple[float, bytes]]
    ) -> None:
        part = b"."
        while part:
            part = b""
            with suppress(OSError):
                part = client.recv(2**16)
            under_way.put((time.monotonic() + self.delay, part))

    def _answer(self, far: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while answered := far.recv(2**16):
                client.sendall(answered)
            client.shutdown(socket.SHUT_RDWR)


class Postgres:
    """A PostgreSQL of its own; root lends it Debian's user, for it refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        self._bin = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self._data, self._log, self._port = folder / "data", folder / "postgres.log", free_port()
        self._as: list[str] = []
        if os.geteuid() == 0:
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            shutil.chown(folder, "postgres")
        self._run("initdb", "--username=mlflow", "--auth=trust", "--encoding=UTF8", "--locale=C")
        self.uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{self._port}/postgres"

    def control(self, *arguments: str) -> None:
        """`pg_ctl`: start, stop or restart; `-m immediate` is as good as a crash."""
        options = f"-h 127.0.0.1 -p {self._port} -c unix_socket_directories="
        self._run("pg_ctl", *arguments, "-w", "-o", options, "-l", str(self._log))

    def runs(self) -> bool:
        return self._run("pg_ctl", "status", check=False) == 0

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        command = [*self._as, str(self._bin / program), "-D", str(self._data), *arguments]
        return subprocess.run(command, check=check, cwd="/", stdout=subprocess.DEVNULL).returncode
