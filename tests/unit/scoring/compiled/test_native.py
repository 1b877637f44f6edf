"""The compiler: imported only when it is used, and named if it is not there."""

import ctypes
import subprocess
import sys

import llvmlite
import pytest

from creditrisk_assets.scoring.compiled.errors import KernelError, MissingCompilerError
from creditrisk_assets.scoring.compiled.native import NativeCode, compile_text, compiler_version
from creditrisk_assets.scoring.compiled.proof import load_kernel
from tests.support.compiled import Compiled

TEXT = "define double @twice(double %x) {\n%y = fadd double %x, %x\nret double %y\n}\n"


def test_text_becomes_a_function() -> None:
    code = NativeCode(compile_text(TEXT))
    twice = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(code.address("twice"))
    assert twice(1.25) == 2.5


def test_text_that_llvm_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(KernelError, match="refuses the text"):
        compile_text(TEXT.replace("fadd", "fold"))


def test_the_same_text_gives_the_same_object_file() -> None:
    assert compile_text(TEXT) == compile_text(TEXT)


def test_the_version_names_compiler_and_processor() -> None:
    assert compiler_version().startswith(f"{llvmlite.__version__} ")
    assert "+" in compiler_version().split()[-1]


def test_without_llvmlite_the_kernel_is_refused_by_name(
    scorecard: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(MissingCompilerError, match="valid: an installation with the extra fast"):
        load_kernel(scorecard.bundle)
    assert issubclass(MissingCompilerError, KernelError)


@pytest.mark.starts_processes
def test_importing_the_package_imports_no_llvmlite() -> None:
    code = (
        "import sys\n"
        "import creditrisk_assets.scoring.compiled.proof\n"
        "assert not {'llvmlite', 'onnx', 'pandas'} & {*sys.modules}, [*sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
