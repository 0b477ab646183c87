"""The command line."""

import os
import time

#: when the command began; a budget of minutes counts from here
LAUNCHED = time.monotonic()
# Where other processes use the processor, threads of OpenMP that wait by spinning take the time of
# those they wait for: steps on two threads took four times as long. torch reads this when imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
