"""The Ray that a command starts for itself."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from ray._private.worker import get_dashboard_url


def test_a_ray_of_its_own_answers_nobody_without_its_token(two_cpus: None) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):  # Ray 2.60 has it on by itself
        urllib.request.urlopen(f"http://{get_dashboard_url()}/api/v0/nodes", timeout=60)
