"""On the PYTHONPATH of a cluster's nodes: every step of training leaves a line in $STEP_TRACE.

"identity step pid time", from rank 0, once the step is taken. A step takes at least a tenth of
a second, or a toy's stage would end before what is done to it has its effect.
"""

import importlib.util
import os
import sys
import time


class _TraceTraining:
    """Wraps `Steps.take` of the training loop, when that is imported."""

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != "trainables.training_loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def and_trace(module):  # type: ignore[no-untyped-def]
            execute(module)
            module.Steps.take = _traced(module.Steps.take, module.rank)

        spec.loader.exec_module = and_trace  # type: ignore[method-assign]
        return spec


def _traced(take_step, rank):  # type: ignore[no-untyped-def]
    def take(steps, batch, lr):  # type: ignore[no-untyped-def]
        end = time.monotonic() + 0.1
        leave = take_step(steps, batch, lr)
        time.sleep(max(0.0, end - time.monotonic()))
        if rank() == 0:
            identity, step = steps._run.stage.identity, steps._state.progress.step + 1
            with open(os.environ["STEP_TRACE"], "a") as file:
                file.write(f"{identity} {step} {os.getpid()} {time.time()}\n")
        return leave

    return take


sys.meta_path.insert(0, _TraceTraining())
