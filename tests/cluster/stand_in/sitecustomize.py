"""On the PYTHONPATH of the tests' Ray: workers run a stand-in in place of the real stages."""

import sys
import types

import stand_in_stage  # type: ignore[import-not-found]

run = types.ModuleType("trainables.stages.run")
run.run_stage = stand_in_stage.run_stage  # type: ignore[attr-defined]
sys.modules["trainables.stages.run"] = run
