import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys, time
from orchestrator.core.watchdog import Watchdog
dog = Watchdog(lambda seconds: print("hung", flush=True), least_s=0.3)
for _ in range(5):
    dog.beat()
    time.sleep(float(sys.argv[1]))
dog.rest()
time.sleep(0.8)
print("at rest", flush=True)
dog.beat()
time.sleep(60)
"""


@pytest.mark.fault
def test_a_process_whose_steps_stay_away_is_ended_and_one_at_rest_is_not() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SCRIPT, "0.01"], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split("\n") == ["at rest", "hung", ""]
    assert time.monotonic() - began < 50


def test_a_step_may_take_many_times_as_long_as_those_before_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.replace("time.sleep(60)", "time.sleep(1)"), "0.1"], check=False)
    assert done.returncode == 0
