"""Texts for people, without what only machines should know."""

from __future__ import annotations

import os
import re

SECRET_NAMES = re.compile("TOKEN|PASSWORD|SECRET|CREDENTIAL|_KEY")  # of environment variables


def scrubbed(text: object) -> str:
    """`text` in one line, without what stands before the @ of an address, and without secrets."""
    shown = re.sub(r"://\S*@", "://", " ".join(str(text).split()))
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value.strip()) > 3:
            shown = shown.replace(value.strip(), "***")
    return shown
