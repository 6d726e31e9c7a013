"""Where it runs: the only place that knows Ray and MLflow."""

import os

# Ray gives up on its own start after a minute, which a busy machine may need. Read when Ray is
# imported, so it is set here, before any of these files does that.
os.environ.setdefault("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "300")
