"""The CUDA operators are loaded where they fit, and otherwise say why not."""

import pytest
import torch
from ghostsr_ext.ops import library


def test_operators_built_for_the_cuda_of_torch_fit():
    assert library.cuda_obstacle("13.0", "13.2") is None


@pytest.mark.parametrize(
    ("built_for", "torch_cuda", "words"),
    [
        ("13.0", None, "has no CUDA"),
        (None, None, "has no CUDA"),
        (None, "13.0", "this build of ghostsr has none"),
        ("12.9", "13.0", "built for CUDA 12.9"),
    ],
)
def test_operators_that_do_not_fit_have_a_reason(built_for, torch_cuda, words):
    assert words in library.cuda_obstacle(built_for, torch_cuda)


def test_status_tells_whether_they_are_loaded():
    path = library.library_path("_ops_cuda")
    if path is None or torch.version.cuda is None:
        assert library.cuda_status().startswith("not loaded: ")
    else:
        assert library.cuda_status() == "loaded"


def test_every_operator_has_a_cuda_kernel():
    operators = library.operator_names()

    assert "ghost_conv" in operators
    for name in operators:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ghostsr::{name}", "CUDA"), name


@pytest.mark.skipif(
    library.cuda_status() != "loaded", reason=f"the CUDA operators are {library.cuda_status()}"
)
def test_the_loaded_library_refuses_only_what_belongs_to_the_cpu():
    refused = {key.split("/")[1] for key in library._refusals._op_impls}

    assert refused == {
        "cached_bytes",
        "choose_convolution_path",
        "empty_map",
        "ghost_conv.out",
        "ghost_conv_backward",
        "layer_cache",
        "packed_weight_bytes",
        "release_memory",
    }


def test_without_the_library_a_cuda_tensor_meets_the_reason():
    kernel = library._refusal("ghost_conv", "this build has none")

    with pytest.raises(
        RuntimeError, match=r"ghostsr::ghost_conv: .* cuda, but this build has none"
    ):
        kernel(torch.zeros(1), activation="relu")


def test_a_library_that_fails_to_load_is_reported_not_raised(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "_ops_cuda.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(library, "library_path", lambda _: str(broken))
    monkeypatch.setattr(library, "cuda_obstacle", lambda *_: None)

    reason = library._load_cuda()

    assert reason is not None
    assert reason.startswith("loading failed: ")
    assert "failed to load" in caplog.text
