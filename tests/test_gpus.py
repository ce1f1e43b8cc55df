"""Which GPU a process is given, from a list of made-up ones; and what is said where one is full."""

from __future__ import annotations

import pytest
import torch

from gliofed.data.splits import Split
from gliofed.errors import GliofedError, QuorumError
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.parallel import named_errors
from gliofed.runtime import device
from gliofed.runtime.device import models_a_gpu, process_environments, processes_at_once

RUN = ModelRun("pooled", 2, Split("north", {}, {}, (), ()), {})


def visible(*names: str) -> tuple[dict[str, str], ...]:
    return tuple({"CUDA_VISIBLE_DEVICES": name} for name in names)


@pytest.mark.parametrize(
    ("chosen", "number", "names"),
    [
        (None, 0, ()),
        (None, 3, ("0", "1", "2")),
        ("2, 5", 2, ("2", "5")),
        ("GPU-3f,GPU-8a", 2, ("GPU-3f", "GPU-8a")),
        ("", 0, ()),
        ("1,9", 1, ("1",)),  # CUDA stops at the first that is not there
    ],
)
def test_gpus_have_the_names_that_the_user_chose_them_by(
    monkeypatch, chosen, number, names
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    assert device.accelerators() == names


@pytest.mark.parametrize(
    ("gpus", "processes", "wanted", "on_one"),
    [
        ((), 4, (), 1),
        (("4", "6"), 1, ("4",), 1),
        (("4", "6"), 2, ("4", "6"), 1),
        (("4", "6"), 3, ("4", "6", "4"), 2),
    ],
)
def test_processes_are_spread_over_the_gpus(monkeypatch, gpus, processes, wanted, on_one) -> None:
    monkeypatch.setattr(device, "accelerators", lambda: gpus)
    assert process_environments(processes) == visible(*wanted)
    assert models_a_gpu(processes) == on_one
    assert processes_at_once() == (len(gpus) or device.cores())


@pytest.mark.parametrize(("models", "kept"), [(1, []), (4, [0.25])])
def test_models_that_share_a_gpu_have_equal_parts_of_its_memory(monkeypatch, models, kept) -> None:
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    device.keep_to_share(models)
    assert fractions == kept


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["gpu", "torch", "python"],
)
def test_a_model_that_is_too_large_is_named_with_its_cure(error) -> None:
    with pytest.raises(GliofedError) as caught, named_errors(RUN):
        raise error
    text = str(caught.value)
    first = str(error).partition("\n")[0] or "MemoryError"
    assert text.startswith(f"pooled, north, seed 2: not enough memory ({first}); ")
    assert "fewer --processes" in text


def test_errors_of_gliofed_keep_their_class_and_others_stay() -> None:
    with pytest.raises(QuorumError, match=r"^pooled, north, seed 2: too few$"), named_errors(RUN):
        raise QuorumError("too few")
    with pytest.raises(RuntimeError, match=r"^a fault$"), named_errors(RUN):
        raise RuntimeError("a fault")
