"""The command line."""

import os
import time

#: when this was imported, which is when a command began that is a process of its own; and when the
#: command began that runs, from where a budget of minutes counts
IMPORTED = launched = time.monotonic()
# Where other processes use the processor, threads of OpenMP that wait by spinning take the time of
# those they wait for: steps on two threads took four times as long. torch reads this when imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
