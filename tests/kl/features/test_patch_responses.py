"""Responses of patches: every way to them gives the same whole numbers, and the choice between them."""

import functools

import pytest
import torch
from compiled_code import best_library, library
from small_patches import ENCODINGS, pictures, small

import kl.rows.int8
from kl.compiled import LIBRARIES, processor_flags
from kl.features.patch_compiled import CompiledResponses
from kl.features.patch_fastest import WAYS, fastest_on_cpu
from kl.features.patch_responses import ByteResponses, PlainResponses, Term

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
CAPABILITY = torch.backends.cpu.get_cpu_capability()


def require(kind):
    """Skips where this machine cannot compute so."""
    name = kind.keywords.get("library") if isinstance(kind, functools.partial) else None
    if kind is ByteResponses and not (processor_flags() >= {"avx512_vnni"} and CAPABILITY == "AVX512"):
        pytest.skip("products of bytes are not exact on this processor")
    if isinstance(kind, functools.partial) and kind.keywords.get("integer") and not kl.rows.int8.int8_is_exact(CPU):
        pytest.skip("int8 products are not exact or slow on this processor")
    if name:
        library(name)
    if kind is CompiledResponses:
        best_library()


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize(
    "terms", [[Term(1, 0, 1, 0)], [Term(1, 9, 127, 9)], [Term(1, 9, 127, 9), Term(-1, -127, -9, -9)]]
)
@pytest.mark.parametrize(
    "kind",
    [
        PlainResponses,
        functools.partial(PlainResponses, integer=True),
        ByteResponses,
        CompiledResponses,
        *(functools.partial(CompiledResponses, library=name) for name in LIBRARIES),
    ],
)
def test_responses_are_those_of_whole_numbers(kind, terms, extreme):
    require(kind)
    generator = torch.Generator().manual_seed(0)
    patches = torch.randint(-30, 31, (91, 27), generator=generator)
    units = torch.randint(-30, 31, (3, 35, 27), generator=generator)
    if extreme:
        patches[::3], units[:, ::2] = 127, -127
        patches[1::3], units[:, 1::4] = -127, 127
    thresholds = torch.randint(-500, 500, (91,), generator=generator)
    z = units @ patches.T
    r = (z - thresholds).double() if terms[0].high == 1 else (z.double() / 128).round()
    cells = torch.randint(2, (5, 35), generator=generator).to(torch.int8)
    cells[:, 4:17], cells[:, 20] = cells[:, 4:5], 0  # 13 positions of the same cells, one position of none
    responses = kind(patches.float(), thresholds.float() if terms[0].high == 1 else None, terms)
    prepared = responses.prepare(torch.nn.functional.pad(units.float(), (0, responses.columns - 27)))
    for places in (slice(0, 35), slice(12, 31)):
        r_of, cells_of = r[:, places].clone(), cells[:, places].clone()
        expected = torch.stack(
            [torch.einsum("cp,npm->cnm", cells_of.double(), r_of.clamp(t.low, t.high)) for t in terms]
        )
        assert torch.equal(responses.sums(prepared, responses.band(places, cells_of)).double(), expected)


def test_rounding_is_to_even_as_torch_rounds():
    """Products that are odd multiples of 64 lie between two steps of 128."""
    require(CompiledResponses)
    units = torch.arange(-120, 121).mul(1.0)[None, :, None].expand(1, 241, 4).contiguous()
    patches = torch.tensor([[16.0] * 4, [48.0, 16, 0, 0]])
    terms, cells = [Term(1, -127, 127, 0)], torch.eye(241, dtype=torch.int8)
    found = []
    for kind in (PlainResponses, CompiledResponses):
        responses = kind(patches, None, terms)
        found.append(responses.sums(responses.prepare(units), responses.band(slice(0, 241), cells)).double())
    assert (found[0][0, :, 0, 0] == (units[0, :, 0].double() / 2).round()).all()
    assert torch.equal(*found)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_images(threads):
    require(CompiledResponses)
    images, before = pictures(8), torch.get_num_threads()
    patches = small(encoding="rectified").fit(images)
    expected = patches.transform(images)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(patches.transform(images), expected)
    finally:
        torch.set_num_threads(before)


def test_a_way_that_is_not_exact_or_fails_is_not_taken(monkeypatch, caplog):
    images = pictures(9)
    patches = small(encoding="rectified").fit(images)
    expected = patches.transform(images)
    caplog.set_level("INFO")

    class Wrong(PlainResponses):
        def sums(self, prepared, band):
            return super().sums(prepared, band)[:, :, :, :] + 1

    class Failing(PlainResponses):
        def sums(self, prepared, band):
            return torch.zeros(1).view(2)

    def uncompiled(*_):
        raise NotImplementedError("there is no compiled code")

    for kind, said in (
        (Wrong, "is not exact"),
        (Failing, "invalid for input of size"),
        (uncompiled, "there is no compiled code"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("kl.features.patch_fastest.WAYS", {"another way": kind})
            fastest_on_cpu.cache_clear()
            assert fastest_on_cpu() is PlainResponses
            assert torch.equal(patches.transform(images), expected)
        assert said in caplog.messages[-1]
        caplog.clear()
    fastest_on_cpu.cache_clear()


@pytest.mark.parametrize("kind", [PlainResponses, *WAYS.values()])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_all_ways_to_the_responses_give_the_same_features(monkeypatch, encoding, kind):
    images = pictures(9)
    patches = small(encoding=encoding).fit(images)
    expected = patches.transform(images)
    require(kind)
    monkeypatch.setattr("kl.features.patch_encoding.responses_on", lambda device: kind)
    assert torch.equal(patches.transform(images), expected)
