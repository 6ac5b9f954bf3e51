import json
import os
import subprocess
import sys
from pathlib import Path

import ghostsr_ext
import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ghostsr_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_is_the_package_version():
    assert run("--version").stdout.strip() == f"ghostsr {ghostsr_ext.__version__}"


def test_help_loads_nothing_heavy():
    script = (
        "import sys\n"
        "from ghostsr_cli.main import create_app\n"
        "create_app()\n"
        "heavy = {'torch', 'numpy', 'PIL', 'sklearn', 'pydantic', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_users_mistake_is_one_line_and_status_one(tmp_path):
    missing = tmp_path / "missing.pth"
    result = run("info", str(missing))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("ghostsr: error: ")
    assert str(missing) in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "--no-such-option"], "No such option"),
        (["bench"], "Missing argument"),
        (["upscale", "a.png", "--format", "avif"], "'avif' is not one of 'png'"),
        (["bench", "x2", "--dtype", "int8"], "'int8' is not one of 'float32'"),
        (["enlarge"], "No such command 'enlarge'"),
    ],
)
def test_wrong_words_are_one_line_and_where_to_look_with_status_two(arguments, message):
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    first, advice = result.stderr.splitlines()
    assert first.startswith("ghostsr")
    assert message in first
    assert "Value error" not in first
    assert advice.endswith("--help`.")


def test_no_words_at_all_print_the_help():
    result = run()
    assert result.stdout.startswith("Usage: ghostsr")
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["convert", "bench", "eval", "export", "info", "upscale"])
def test_usage_lines_name_what_they_take_once(command):
    usage = run(command, "--help").stdout.splitlines()[0]
    assert usage.startswith(f"Usage: ghostsr {command} [OPTIONS]")
    assert "......" not in usage
    assert "[[" not in usage


def test_help_takes_less_than_a_third_of_a_second_of_computation():
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # Computation, not the clock, which a busy machine would make a matter of luck.
    assert spent < 0.3


def test_info_tells_what_a_bug_report_needs():
    content = json.loads(run("info", "--json", "-").stdout)
    for key in ("version", "simd_chosen", "torch", "cuda", "torch_abi_target"):
        assert content[key], key
    assert content["native_bfloat16"] is (content["simd_chosen"] == "amx")


@pytest.mark.parametrize("level", ["portable", "avx512"])
def test_info_tells_that_a_level_without_tiles_has_no_native_bfloat16(level, monkeypatch):
    monkeypatch.setenv("GHOSTSR_SIMD", level)
    content = json.loads(run("info", "--json", "-").stdout)
    assert content["native_bfloat16"] is False


def test_info_describes_a_checkpoint_of_ours(tmp_path):
    from ghostsr_ext.checkpoints import save_model
    from ghostsr_ext.models import create_model

    path = tmp_path / "small.safetensors"
    save_model(create_model("edsr", blocks=1, features=8), path)
    result = run("info", str(path))
    assert result.returncode == 0, result.stderr
    assert "edsr, x2" in result.stdout
    assert "body.0.conv1" in result.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["ex"], ["export"]), (["export", "--ghost"], ["--ghost-as"])],
)
def test_bash_completes_commands_and_options(words, expected):
    script = (
        'eval "$(ghostsr --show-completion)"\n'
        f"COMP_WORDS=(ghostsr {' '.join(words)}); COMP_CWORD={len(words)}\n"
        '_ghostsr_completion ghostsr; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": folders},
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == expected, done.stderr
