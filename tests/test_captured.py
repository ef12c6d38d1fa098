"""Recorded scales against eager ones: a recorder for the CPU on the same buffers, and graphs where there is a GPU."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from conftest import TINY_VAR, build_model
from rerun import Rerun, overwrite

import hieramp
from hieramp import Amplification
from hieramp.generation import captured
from hieramp.generation.captured import CudaGraphCache, CudaRecorder, bucket, copied
from hieramp.generation.sampling import gumbel_noise, noise_keys

T = TypeVar("T")
ALL = Amplification((0.5, 5.0), (0.5, 5.0), (0.5, 5.0))
OTHER = Amplification((0.3, 2.0), None, (0.7, -3.0))
WEAK = Amplification((0.5, 0.2), (0.5, 0.2), (0.5, 0.2), mode="attention")
NAMED = Amplification(mid=(0.5, 5.0), positions={3: (0, 1, 2)})
CONTROL = Amplification((0.5, 2.0), (0.5, 5.0), where="random")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def recording(model: hieramp.Model, after: int = 0) -> tuple[hieramp.Model, Rerun]:
    """The same weights, drawn through a recorder."""
    recorder = Rerun()
    return replace(model, captured=CudaGraphCache(lambda: recorder, after)), recorder


def same_drawing(a: hieramp.Drawing, b: hieramp.Drawing) -> bool:
    """The same tokens; maps and pictures but for rounding."""
    floats = zip((*a.saliency, a.images), (*b.saliency, b.images), strict=True)
    near = all(torch.allclose(x.float(), y.float(), atol=1e-5) for x, y in floats)
    return near and all(torch.equal(x, y) for x, y in zip(a.tokens, b.tokens, strict=True))


@pytest.fixture(scope="module", params=["tokens", "read-only", "no tokens", "no l2", "passes"])
def pair(request: pytest.FixtureRequest) -> tuple[hieramp.Model, hieramp.Model]:
    """A plain model and one that records, which the tests share: they find the buffers as others left them."""
    changes: dict[str, dict[str, Any]] = {
        "tokens": {},
        "read-only": {"read_only_class_tokens": True},
        "no tokens": {"class_token_scales": ()},
        "no l2": {"l2_attention": False},
        "passes": {"read_only_class_tokens": True, "last_passes": 4},
    }
    plain = build_model(replace(TINY_VAR, **changes[request.param]))
    return plain, recording(plain)[0]


@pytest.mark.parametrize("guidance", [0.0, 4.0])
@pytest.mark.parametrize("count", [1, 3, 17])
def test_recorded_scales_draw_the_plain_tokens(
    pair: tuple[hieramp.Model, hieramp.Model], count: int, guidance: float
) -> None:
    plain, ours = pair
    labels, seeds = [i % 4 for i in range(count)], list(range(count))
    mixed = [[None, ALL, WEAK, OTHER, NAMED, CONTROL][i % 6] for i in range(count)]
    for amplification in (None, ALL, mixed, list(reversed(mixed))):
        expected = plain.generate(labels, seeds, amplification, guidance=guidance)
        assert same_drawing(ours.generate(labels, seeds, amplification, guidance=guidance), expected)


def test_a_scale_is_recorded_once_and_serves_other_strengths_and_counts(model: hieramp.Model) -> None:
    ours, recorder = recording(model)
    ours.generate(list(range(4)) * 4, range(16), ALL)
    assert recorder.recorded == 7  # the conditions and six scales
    for count, amplification in ((16, ALL), (16, OTHER), (16, replace(ALL, fine=(0.1, 1.0)))):
        ours.generate([1] * count, range(count), amplification)
    assert recorder.recorded == 9  # nothing is amplified at the two mid scales of OTHER
    ours.generate([1] * 17, range(17), ALL)
    once = recorder.recorded
    ours.generate([1] * 18, range(18), ALL)
    assert recorder.recorded == once


class Zeros(Rerun):
    """Records another computation than the one it was given."""

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        result = copied(run())

        def replay() -> T:
            overwrite(result, copied(result, torch.zeros_like))
            return result

        return replay


class Empty(Rerun):
    """What a graph without a kernel does, as of another GPU's stream: its results stay what they are."""

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        result = copied(run())
        return lambda: result


class Stale(Rerun):
    """Returns the results of the recording for ever, whatever the inputs."""

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        result = copied(run())
        return lambda: copied(result)


class Unable(Rerun):
    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        raise RuntimeError("operation not permitted when stream is capturing")


class UnableAtFirst(Rerun):
    """Cannot record the conditions, which the scales read."""

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        if not self.recorded:
            self.recorded = 1
            raise RuntimeError("not the conditions")
        return super().record(run)


def test_nothing_is_recorded_beside_what_could_not_be(model: hieramp.Model) -> None:
    """A graph of a scale would read the conditions where the first drawing left them."""
    recorder = UnableAtFirst()
    ours = replace(model, captured=CudaGraphCache(lambda: recorder, 0))
    with pytest.warns(UserWarning, match="not the conditions"):
        ours.generate([1, 1, 1], [0, 1, 2], ALL)
    assert same_drawing(ours.generate([2, 3, 0], [0, 1, 2], ALL), model.generate([2, 3, 0], [0, 1, 2], ALL))
    assert recorder.recorded == 1


@pytest.mark.parametrize(
    ("recorder", "why"),
    [
        (Zeros, "gave other results"),
        (Empty, "gave other results"),
        (Stale, "gave other results"),
        (Unable, "operation not permitted"),
    ],
)
def test_a_recording_that_fails_costs_nothing_but_time(model: hieramp.Model, recorder: type[Rerun], why: str) -> None:
    ours = replace(model, captured=CudaGraphCache(recorder, 0))
    with pytest.warns(UserWarning, match=f"without CUDA graphs, which only takes longer: .*{why}"):
        drawing = ours.generate([1, 2, 3], [0, 1, 2], [ALL, None, WEAK])
    assert same_drawing(drawing, model.generate([1, 2, 3], [0, 1, 2], [ALL, None, WEAK]))
    again = [2, 0, 3], [7, 8, 9], [None, ALL, WEAK]
    assert same_drawing(ours.generate(*again), model.generate(*again))


class FirstOnly(Rerun):
    """Records the conditions as it should, and scales that are stale."""

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        if not self.recorded:
            return super().record(run)
        return Stale().record(run)


def test_every_scale_must_prove_itself(model: hieramp.Model) -> None:
    recorder = FirstOnly()
    ours = replace(model, captured=CudaGraphCache(lambda: recorder, 0))
    with pytest.warns(UserWarning, match="gave other results"):
        ours.generate([1, 2, 3], [0, 1, 2], ALL)
    assert same_drawing(ours.generate([1, 2, 3], [7, 8, 9], ALL), model.generate([1, 2, 3], [7, 8, 9], ALL))


def test_buckets() -> None:
    assert [bucket(n) for n in (1, 2, 7, 15, 16, 17, 25, 33, 100)] == [1, 2, 7, 15, 16, 18, 26, 36, 104]
    assert all(n <= bucket(n) <= 1.125 * n for n in range(1, 300))


def test_a_step_keeps_its_results_through_the_next_drawing(model: hieramp.Model) -> None:
    ours, _ = recording(model)
    steps = list(ours.steps([1, 2], [0, 1], ALL))
    before = [(step.tokens.clone(), step.logits.clone()) for step in steps]
    ours.generate([3, 0], [5, 6], OTHER)
    plain = list(model.steps([1, 2], [0, 1], ALL))
    for step, (tokens, logits), other in zip(steps, before, plain, strict=True):
        assert torch.equal(step.tokens, tokens) and torch.equal(step.logits, logits)
        assert torch.allclose(step.saliency, other.saliency, atol=1e-6) and torch.equal(
            step.is_unambiguous, other.clear
        )
        assert torch.allclose(step.image, other.image, atol=1e-5)


def test_what_cannot_be_recorded_is_drawn_plainly(model: hieramp.Model) -> None:
    ours, recorder = recording(model)
    early = replace(ALL, blocks=(0, 1))
    calls: list[dict[str, Any]] = [
        dict(labels=[1, 1], seeds=[3, 3], amplification=[None, ALL]),  # rows that part
        dict(labels=[1, 1], seeds=[3, 4], amplification=[None, early]),  # read at different blocks
    ]
    for call in calls:
        assert same_drawing(ours.generate(**call), model.generate(**call))
    assert all(step.block_saliency is not None for step in ours.steps([1], [0], return_attention=True))
    assert recorder.recorded == 0
    assert same_drawing(ours.generate([1, 1], [3, 4], early), model.generate([1, 1], [3, 4], early))
    assert recorder.recorded > 0


def test_a_temperature_is_part_of_a_recording(model: hieramp.Model) -> None:
    ours, _ = recording(model)
    for temperature in (1.0, 0.0, (1, 1, 0.5), 1.0):
        call = dict(labels=[1, 2], seeds=[3, 4], temperature=temperature)
        assert same_drawing(ours.generate(**call), model.generate(**call))


def test_a_drawing_within_a_drawing_is_its_own(model: hieramp.Model) -> None:
    ours, _ = recording(model)
    outer, tokens = ours.steps([1, 2], [0, 1], ALL), []
    for step in outer:
        tokens.append(step.tokens)
        assert same_drawing(ours.generate([3, 0], [step.scale, 9]), model.generate([3, 0], [step.scale, 9]))
    assert all(map(torch.equal, tokens, model.generate([1, 2], [0, 1], ALL).tokens))
    abandoned = ours.steps([1, 2], [0, 1])
    next(abandoned)
    abandoned.close()
    assert ours.captured is not None and not ours.captured._lock.locked()


def test_models_share_no_buffers(model: hieramp.Model) -> None:
    ours, _ = recording(model)
    double = copy.deepcopy(ours)
    double.var.double(), double.vqvae.double()
    assert same_drawing(ours.generate([1], [0], ALL), model.generate([1], [0], ALL))
    drawn = double.generate([1], [0], ALL)
    assert drawn.images.dtype == torch.float32 and same_drawing(drawn, model.generate([1], [0], ALL))
    mine, theirs = ours.captured, double.captured
    assert mine is not None and theirs is not None and mine._buffers[1, True] is not theirs._buffers[1, True]
    assert theirs._buffers[1, True].cache.keys_NBHTD.dtype == torch.float64


def test_weights_that_moved_are_recorded_anew(model: hieramp.Model) -> None:
    plain = copy.deepcopy(model)
    ours, recorder = recording(plain)
    ours.generate([1], [0], ALL)
    once = recorder.recorded
    with torch.no_grad():
        for parameter in plain.var.parameters():
            parameter.data = parameter.data * 1.1
    assert same_drawing(ours.generate([1], [0], ALL), plain.generate([1], [0], ALL)) and recorder.recorded == 2 * once


def test_few_buffers_and_graphs_are_kept(model: hieramp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "MAX_GRAPHS", 6)
    monkeypatch.setattr(captured, "MAX_ROWS", 5)
    ours, recorder = recording(model, after=1)
    ours.generate([1], [0])
    assert recorder.recorded == 0  # one drawing is not worth a recording
    for count in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6, 6):
        call = dict(labels=[1] * count, seeds=range(count), amplification=WEAK)
        assert same_drawing(ours.generate(**call), model.generate(**call))
    assert ours.captured is not None and len(ours.captured._buffers) == captured.MAX_BUFFERS and recorder.finished > 0
    assert all(len(buffers._graphs) <= 6 for buffers in ours.captured._buffers.values())
    assert model.to("cpu").captured is None


@pytest.fixture(scope="module")
def cuda_pair() -> Iterator[tuple[hieramp.Model, hieramp.Model]]:
    """TF32 off: another number of rows may bring another algorithm for a convolution, which could turn a token."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    plain = build_model().to("cuda")
    ours = replace(plain, captured=CudaGraphCache(CudaRecorder, after=0))
    yield replace(plain, captured=None), ours
    torch.backends.cudnn.allow_tf32 = before


@needs_cuda
@pytest.mark.parametrize("count", [1, 3, 17])
def test_graphs_draw_the_plain_tokens(cuda_pair: tuple[hieramp.Model, hieramp.Model], count: int) -> None:
    plain, ours = cuda_pair
    labels, seeds = [i % 4 for i in range(count)], list(range(count))
    for guidance in (0.0, 4.0):
        for amplification in (None, ALL, OTHER, WEAK, NAMED, ALL):
            expected = plain.generate(labels, seeds, amplification, guidance=guidance)
            assert same_drawing(ours.generate(labels, seeds, amplification, guidance=guidance), expected)


@needs_cuda
def test_graphs_may_be_declined(model_folder: Path) -> None:
    assert hieramp.load(model_folder, "cuda").captured is not None
    assert hieramp.load(model_folder, "cuda", cuda_graphs=False).captured is None


@needs_cuda
def test_a_card_makes_the_same_noise() -> None:
    keys_B2 = noise_keys([0, 3], [7, 2**31 + 5], torch.device("cpu"))
    assert torch.allclose(
        gumbel_noise(keys_B2.cuda(), 5, 64, 1024).cpu(), gumbel_noise(keys_B2, 5, 64, 1024), atol=1e-4
    )


@needs_cuda
@pytest.mark.parametrize("recorded", [False, True])
def test_the_loop_never_waits_for_the_card(cuda_pair: tuple[hieramp.Model, hieramp.Model], recorded: bool) -> None:
    ours = cuda_pair[recorded]
    for amplification in (ALL, OTHER):
        ours.generate([1, 2], [0, 1], amplification)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours.generate([1, 2], [2, 3], OTHER)
        ours.generate([1, 2], [4, 5], ALL)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_graphs(dtype: torch.dtype) -> None:
    ours = build_model().to("cuda", dtype)
    plain = replace(ours, captured=None)
    first, second, third = (ours.generate([1, 2], [0, 1], [ALL, WEAK]) for _ in range(3))
    expected = plain.generate([1, 2], [0, 1], [ALL, WEAK])
    assert all(same_drawing(drawing, expected) for drawing in (first, second, third))
