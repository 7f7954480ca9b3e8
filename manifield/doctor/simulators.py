"""CoppeliaSim with PyRep and RLBench: check by check, and at last a start of the simulator itself."""

from __future__ import annotations

from manifield.doctor.findings import Failed, Finding, attempt

# Qt ends the process where it finds no display or another library's plugins: nobody but a child may try.
_START = """
import rlbench, pyrep
simulator = pyrep.PyRep()
simulator.launch("", headless=True)
simulator.shutdown()
found = f"RLBench {rlbench.__version__}, PyRep {pyrep.__version__}"
"""


def check_rlbench(timeout: float) -> list[Finding]:
    """The backend as a whole, then what its installation needs, in the order in which one would mend it."""
    from envs.rlbench.installation import checks

    found = [Finding(f"  {check.name}", check.ok, check.remedy) for check in checks()]
    wrong = [finding for finding in found if not finding.ready]
    if wrong:
        text = f"{len(wrong)} of {len(found)} checks below are not right, begin with: {wrong[0].name.strip()}"
        return [Finding("rlbench", False, text), *found]
    try:
        started = attempt(_START, timeout)
    except Failed as failure:
        text = f"all below is right, but CoppeliaSim did not start: {failure}; try `xvfb-run -a manifield doctor`"
        return [Finding("rlbench", False, text), *found]
    return [Finding("rlbench", True, f"{started}, CoppeliaSim started and stopped"), *found]
