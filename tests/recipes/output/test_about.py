"""`kl --version` says what a report of a fault needs, on any system."""

import sys
from types import SimpleNamespace

import pytest
import torch

from kl import __version__
from recipes.output.about import about_lines, cpu_units

X86 = "processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_tile amx_int8\n"
ARM = "processor : 0\nFeatures\t: fp asimd asimddp bf16\n"


def facts():
    first, *lines = about_lines()
    assert first == f"kl {__version__}"
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_command_prints_it(kl):
    result = kl("--version")
    assert result.code == 0
    assert result.out.startswith(f"kl {__version__}\n")
    for name in ("Python", "torch", "CPU", "CPU units", "memory", "devices", "packages"):
        assert f"\n{name}: " in result.out


def test_versions_and_threads():
    found = facts()
    assert found["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert found["torch"] == torch.__version__
    threads = torch.get_num_threads()
    assert found["CPU"].endswith(f", {threads} thread{'s' if threads > 1 else ''} of torch")
    assert found["CPU units"].endswith(f"torch takes {torch.backends.cpu.get_cpu_capability()}")
    assert "numpy 2." in found["packages"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, "AVX2, AVX-512, AVX-512 VNNI, AMX int8 (not seen: AVX-512 BF16, AVX-VNNI, AMX bfloat16)"),
        (ARM, "NEON, dot products, bfloat16 (not seen: int8 matrices, SVE, SME)"),
    ],
)
def test_units_are_read_from_the_flags(text, expected, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_units(tmp_path / "cpuinfo") == expected


def test_units_that_the_system_does_not_list_are_not_known(tmp_path):
    assert cpu_units(tmp_path / "cpuinfo").startswith("not known, because ")
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert "does not list them" in cpu_units(tmp_path / "cpuinfo")


def test_devices_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert facts()["devices"] == "the CPU alone (no CUDA device, no MPS)"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert facts()["devices"] == "MPS, which kl does not use"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = SimpleNamespace(name="Some GPU", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert facts()["devices"] == "cuda:0 Some GPU, 80 GB; cuda:1 Some GPU, 80 GB; CUDA 13.2"


def test_a_torch_that_cannot_be_imported_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = facts()
    assert found["torch"].startswith("cannot be imported: ")
    assert "devices" not in found
    assert found["CPU"]
