"""In a process of their own, where nothing has imported scipy yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORTS = """
import sys
from registry.launch.importing import importing
with importing():
    import scipy.stats, scipy.integrate
    from scipy import integrate
    from scipy.optimize import linear_sum_assignment
    assert len([name for name in sys.modules if name.startswith("scipy.stats")]) == 1, "scipy.stats was run"
"""


def printed(code: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", IMPORTS + code], check=True, capture_output=True, text=True)
    return run.stdout.splitlines()


@pytest.mark.slow
def test_what_is_imported_gives_what_the_library_gives() -> None:
    code = """
print(hasattr(scipy.stats, "__no_such__"), type(sys.modules["scipy.stats"]).__name__, hasattr(scipy.stats, "no_such_distribution"))
print(scipy.stats.beta.ppf(0.25, 1, 1), integrate.quad(float, 0, 2)[0], linear_sum_assignment([[1, 2], [3, 1]])[1])
from scipy.optimize import linear_sum_assignment as own
print(type(own).__name__, type(sys.modules["scipy.stats"]).__name__, scipy.stats is sys.modules["scipy.stats"], "norm" in dir(integrate))
print(integrate.quad is sys.modules["scipy.integrate"].quad)
with importing():
    import requests
print(type(requests).__name__, requests.__version__ == sys.modules["requests"].__version__, type(sys.modules["requests"]).__name__)
"""
    assert printed(code) == [
        "False LateModule False",
        "0.25 2.0 [0 1]",
        "builtin_function_or_method module True False",
        "True",
        "LateModule True module",
    ]


@pytest.mark.slow
def test_a_module_inside_is_made_once() -> None:
    code = """
import scipy.stats._qmc
print(scipy.stats._qmc is sys.modules["scipy.stats._qmc"], scipy.stats.qmc.Sobol is scipy.stats._qmc.Sobol)
print(scipy.stats._qmc.__spec__.loader.__class__.__name__)
"""
    assert printed(code) == ["True True", "SourceFileLoader"]
