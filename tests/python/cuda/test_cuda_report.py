"""The gates on the machine code let a sound kernel through and name what breaks an unsound one."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import cuda_report

SOUND = cuda_report.Kernel(
    name="shift_concat_rows<float>",
    architecture=90,
    registers=40,
    shared_bytes=0,
    stack_bytes=0,
    local_bytes=0,
    wide_loads=3,
    wide_stores=1,
)


def test_a_sound_kernel_breaks_no_gate():
    assert cuda_report.failures([SOUND]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stack_bytes": 8}, "8 bytes of stack"),
        ({"local_bytes": 16}, "16 of local memory"),
        ({"local_accesses": 2}, "2 accesses to it"),
        ({"wide_stores": 0}, "no store of sixteen bytes"),
        ({"wide_loads": 0}, "no load of sixteen bytes"),
    ],
)
def test_an_unsound_kernel_is_named_with_its_architecture(change, words):
    (failure,) = cuda_report.failures([replace(SOUND, **change)])

    assert failure.startswith("shift_concat_rows<float> for sm_90: ")
    assert words in failure


def test_a_kernel_off_the_vector_paths_may_move_single_elements():
    elements = replace(SOUND, name="shift_concat_elements<float>", wide_loads=0, wide_stores=0)

    assert cuda_report.failures([elements]) == []


def test_machine_code_is_read_by_function_and_architecture(monkeypatch):
    lines = """
arch = sm_80
\t\tFunction : copy
        /*0010*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0020*/              @P0  LDG.E R8, [R2.64] ;
        /*0030*/              @!P1 STG.E.128 [R6.64], R4 ;
arch = sm_90
\t\tFunction : copy
        /*0010*/                   STL [R1], R4 ;
"""
    monkeypatch.setattr(cuda_report, "find_tool", lambda name: name)
    monkeypatch.setattr(cuda_report, "run", lambda *_: lines)
    kernels = {("copy", number): replace(SOUND, wide_loads=0, wide_stores=0) for number in (80, 90)}

    cuda_report.count_accesses(Path("library"), kernels)

    first, second = kernels["copy", 80], kernels["copy", 90]
    assert (first.wide_loads, first.wide_stores, first.local_accesses) == (1, 1, 0)
    assert (second.wide_loads, second.wide_stores, second.local_accesses) == (0, 0, 1)
