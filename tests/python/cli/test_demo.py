import socket

import pytest
from command_line import invoke
from ghostsr_cli.demo import demo_command
from ghostsr_ext.checkpoints import save_model
from ghostsr_ext.errors import GhostsrError, InputError
from ghostsr_ext.models.edsr import EDSR

pytest.importorskip("gradio", reason="the demo needs gradio (extra: demo)")


def run(*arguments):
    return invoke(demo_command, *arguments)


def test_a_model_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"model gone\.safetensors: does not exist"):
        run("gone.safetensors")


def test_a_port_that_is_taken_is_told(tmp_path):
    save_model(EDSR(scale=2, blocks=1, features=4), tmp_path / "net.safetensors")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(GhostsrError, match=f"port {port}: cannot be used"):
            run(str(tmp_path / "net.safetensors"), "--port", str(port))
