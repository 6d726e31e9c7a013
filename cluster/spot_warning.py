"""Tells Ray that this node will be taken away, when the cloud says so of a spot machine.

    python -m cluster.spot_warning aws &        on each spot node, once its Ray runs; or gcp

Ray drains the node: it starts nothing there any more, and what trains there leaves with a
checkpoint of its next step. On Kubernetes Ray does this by itself when its pod is ended.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import datetime

ASK_SECONDS = 2.0
METADATA = {"aws": "http://169.254.169.254", "gcp": "http://metadata.google.internal"}
GCP_GRACE_SECONDS = 30.0


def aws_deadline(metadata: str) -> float | None:
    """When AWS takes this machine back, in seconds since 1970; None as long as it does not."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _answer(f"{metadata}/latest/api/token", lifetime, method="PUT")
    headers = {"X-aws-ec2-metadata-token": token or ""}
    notice = _answer(f"{metadata}/latest/meta-data/spot/instance-action", headers)
    if notice is None:
        return None
    return datetime.fromisoformat(json.loads(notice)["time"]).timestamp()


def gcp_deadline(metadata: str) -> float | None:
    """The same of GCP, which says that it does, half a minute ahead."""
    url = f"{metadata}/computeMetadata/v1/instance/preempted"
    taken = _answer(url, {"Metadata-Flavor": "Google"})
    return time.time() + GCP_GRACE_SECONDS if taken == "TRUE" else None


DEADLINES: dict[str, Callable[[str], float | None]] = {"aws": aws_deadline, "gcp": gcp_deadline}


def drain_this_node(deadline: float) -> None:
    """Raises RuntimeError if Ray does not accept it, and what Ray does where it is not reached."""
    import ray
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    ray.init(address="auto", log_to_driver=False, ignore_reinit_error=True)
    here = ray.get_runtime_context()
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = ray._raylet.GcsClient(address=here.gcs_address).drain_node(
        here.get_node_id(), reason, "the cloud takes this spot machine back", int(1000 * deadline)
    )
    if not accepted:
        raise RuntimeError(f"Ray does not drain this node: {why}")


def main(argv: list[str] | None = None) -> int:
    """Returns once the warning has come and the node drains."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.spot_warning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cloud", choices=[*DEADLINES])
    parser.add_argument("--metadata", help="the address of its metadata server, if not the cloud's")
    arguments = parser.parse_args(argv)
    metadata = arguments.metadata or METADATA[arguments.cloud]
    while (deadline := DEADLINES[arguments.cloud](metadata)) is None:
        time.sleep(ASK_SECONDS)
    print(f"this machine is taken back in {deadline - time.time():.0f} s: draining it", flush=True)
    while not _drained(deadline):
        time.sleep(ASK_SECONDS)
    return 0


def _drained(deadline: float) -> bool:
    """Whether Ray has accepted it. Raises what kept it from that once the deadline is past."""
    try:
        drain_this_node(deadline)
        return True
    except Exception as error:  # whatever it is, the head may answer a moment later
        if time.time() >= deadline:
            raise
        print(f"tried again: {error}", flush=True)
        return False


def _answer(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """None where there is no such thing, or nobody answers: that may be for the moment."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ASK_SECONDS) as response:
            text: str = response.read().decode()
            return text
    except (OSError, http.client.HTTPException):  # an HTTP error is the first, half an answer not
        return None


if __name__ == "__main__":
    sys.exit(main())
