"""Modules beside the standard library's: which a program may import, and that it gets nothing else."""

import os

import pytest

from jaxpolya.api.verifying import verify_response
from jaxpolya.errors import ConfigError
from jaxpolya.verify import code
from jaxpolya.verify.judge import Item, Policy
from jaxpolya.verify.pool import Pool
from jaxpolya.verify.sandbox.packages import locate
from jaxpolya.verify.sandbox.sandbox import LEVELS, Sandbox, SandboxError, machine_weakness

DOUBLE = "import numpy\ndef double(x): return (2 * numpy.array(x)).tolist()"
TESTS = ["assert double([2]) == [4]"]


@pytest.fixture(scope="module", autouse=True)
def runs_here():
    try:
        code.sandbox()
    except SandboxError as error:
        pytest.skip(f"no program can be run on this machine: {error}")


def test_a_module_comes_with_what_it_requires():
    paths = locate(["pandas", "math"])
    assert {"pandas", "numpy", "dateutil"} <= set(paths) and all(path.exists() for path in paths.values())
    assert not {"jaxpolya", "math_verify", "jax", "pytest", "..", "math"} & set(paths)
    assert locate(["numpy"]).keys() < paths.keys() and locate(["math"]) == {}
    assert set(locate(["typing_extensions"])) == {"typing_extensions.py"}


@pytest.mark.parametrize("name", ["nosuch", "../numpy", "numpy.linalg"])
def test_a_module_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match=r"verify\.code\.modules: .*not installed"):
        locate([name])
    with pytest.raises(ConfigError, match=r"verify\.code\.modules"):
        machine_weakness([name])


def test_a_program_may_import_what_is_allowed_and_nothing_else():
    verdict, detail = code.judge(TESTS, DOUBLE, 60.0)
    assert verdict == "wrong" and "No module named 'numpy'" in detail and "programs may import the standard library" in detail
    assert code.judge(TESTS, DOUBLE, 60.0, ("numpy",)) == ("correct", None)
    verdict, detail = code.judge(TESTS, "import sympy\n" + DOUBLE, 60.0, ("numpy",))
    assert verdict == "wrong" and "No module named 'sympy'" in detail and "the standard library and numpy" in detail
    script = "import numpy\nprint(numpy.array(int(input())) * 2)"
    assert code.judge([{"input": "2", "output": "4"}], script, 60.0, ("numpy",)) == ("correct", None)
    assert "numpy" in code.judge([{"input": "2", "output": "4"}], script, 60.0)[1]


@pytest.mark.parametrize("level", LEVELS)
def test_modules_are_there_at_every_level_and_can_not_be_changed(level):
    if level == "user" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    try:
        with Sandbox(level, modules=["numpy"]) as sandbox:
            with sandbox.program(60) as program:
                outcome, complaint = program.load(["import numpy"])
            if level == "user" and outcome != "loaded":
                pytest.skip(f"other users can't read the modules: {complaint}")
            assert outcome == "loaded", complaint
            if level == "namespaces":
                with sandbox.program(60) as program:
                    spoil = "import numpy, os\nopen(os.path.dirname(numpy.__file__) + '/new.py', 'w')"
                    outcome, complaint = program.load([spoil])
                assert outcome == "raised" and "Read-only" in complaint
    except SandboxError as error:
        pytest.skip(f"not on this machine: {error}")


def test_arrays_travel():
    tests = """
import numpy as np
assert np.array_equal(double([1, 2]), [2, 4]) and double(np.array([[1.5]])).tolist() == [[3.0]]
assert (double([1, 2]) == np.array([2, 4])).all() and double([1]).dtype == np.int64
assert total([1, 2]) == 3 and isinstance(total([1]), np.integer) and half() == 0.5 and flag() == True
"""
    program = """
import numpy as np
def double(x): return 2 * np.array(x)
def total(x): return np.sum(x)
def half(): return np.float64(0.5)
def flag(): return np.bool_(True)
"""
    assert code.judge(tests, program, 60.0, ("numpy",)) == ("correct", None)
    liar = "import numpy as np\nclass A:\n    def __eq__(self, other): return True\ndef double(x): return np.array([A()])"
    assert code.judge(["assert double(2)[0] == 4"], liar, 60.0, ("numpy",))[0] == "wrong"


def test_the_pool_and_the_interface_take_modules():
    with Pool(1, policy=Policy(modules=("numpy",))) as pool:
        assert pool.verify([Item(id="x", kind="code", response=DOUBLE, tests=TESTS)])[0].verdict == "correct"
    with Pool(1) as pool:
        assert pool.verify([Item(id="x", kind="code", response=DOUBLE, tests=TESTS)])[0].verdict == "wrong"
    assert verify_response(DOUBLE, kind="code", tests=TESTS, modules=["numpy"]).verdict == "correct"
