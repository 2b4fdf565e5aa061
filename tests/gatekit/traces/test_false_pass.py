"""Traces in which the claim looks true but is not, or is true by accident.

Each test takes a pair that passes (a real trace, and the same trace without the copies
and their launches in every attention) and breaks it in one way.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import ROOT
from gatekit.records.checks import Verdict
from gatekit.traces.verdicts import Assessment, Requirement, analyse, decide
from support.profiler_traces import (
    CAPTURE,
    COPY,
    EAGER,
    GPU,
    REPLAY,
    Document,
    Event,
    broken,
    change,
    correlation,
    drop,
    inside,
    load,
    needs_traces,
    spans,
    without_copies,
    write,
)

pytestmark = needs_traces

MODULE = "Qwen3Attention"
REQUIRED = Requirement(MODULE, 36, 0)
GEMM = "Cijk"
OTHER_NAMES = {
    "CatArrayBatchedCopy": "void at::native::(anonymous namespace)::"
    "CatArrayBatchedCopy<at::native::(anonymous namespace)::OpaqueType<4u> >",
    "rocclr": "__amd_rocclr_copyBuffer",
    "triton": "triton_poi_fused_clone_0",
    "nothing known": "main_kernel",
    "a quantization's": "_fused_rms_fp8_group_quant_kernel",
}


def judge(
    tmp_path: Path,
    after: Document,
    before: Document | None = None,
    name: str = "after-TP-0-EXTEND.trace.json",
    required: Requirement = REQUIRED,
) -> Assessment:
    one = analyse(write(tmp_path / name, after), required, [])
    if before is None:
        return decide(one, None, required)
    place = write(tmp_path / "before-TP-0-EXTEND.trace.json", before)
    return decide(one, analyse(place, required, []), required)


def kernels(document: Document, part: str) -> list[Event]:
    """The module's kernels with that name, in the order in which they ran."""
    mine = inside(document, MODULE)
    found = [
        event
        for event in document["traceEvents"]
        if event.get("cat") in GPU
        and part in event["name"]
        and correlation(event) in mine
    ]
    return sorted(found, key=lambda event: event["ts"])


def call_of(document: Document, kernel: Event) -> str:
    """The name of the module whose call launched it."""
    (at,) = (
        event["ts"]
        for event in document["traceEvents"]
        if event.get("cat") == "cuda_runtime"
        and correlation(event) == correlation(kernel)
    )
    calls = spans(document, MODULE)
    (name,) = (e["name"] for e in calls if e["ts"] <= at < e["ts"] + e["dur"])
    return str(name)


def renamed(document: Document, name: str) -> Document:
    ids = {correlation(event) for event in kernels(document, COPY)}

    def edit(event: Event) -> bool:
        if correlation(event) not in ids:
            return False
        if event["cat"] in GPU:
            event["name"] = name
        elif "kernel" in event["args"]:
            event["args"]["kernel"] = name
        return True

    return change(document, edit)


def test_the_pair_passes(tmp_path: Path) -> None:
    assessment = judge(tmp_path, without_copies(load(EAGER)), load(EAGER))
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    assert judge(tmp_path, without_copies(load(EAGER))).verdict is Verdict.PASS
    (gone,) = [change for change in assessment.changes if change.change != "same"]
    assert (gone.change, gone.before, gone.after) == ("vanished", 2, 0)


def lost_all_modules(document: Document) -> Document:
    calls = {id(span) for span in spans(document, MODULE)}
    return drop(document, lambda event: id(event) in calls)


def lost_one_module(document: Document) -> Document:
    last = spans(document, MODULE)[-1]
    return drop(document, lambda event: event is last)


def lost_one_module_and_renumbered(document: Document) -> Document:
    """As if the profiler had never seen the layer, without a gap in the numbers."""
    calls = spans(document, MODULE)
    for call, after in pairwise(calls[5:]):
        call["ts"], call["dur"] = after["ts"], after["dur"]
    return drop(document, lambda event: event is calls[-1])


def lost_a_layer(document: Document) -> Document:
    """Both the module and its decoder layer."""
    calls = [spans(document, name)[-1] for name in (MODULE, "Qwen3DecoderLayer")]
    return drop(document, lambda event: any(event is call for call in calls))


def lost_kernels(document: Document) -> Document:
    """One in eight, as a full profiler buffer loses them."""
    gpu = [e for e in document["traceEvents"] if e.get("cat") in GPU][::8]
    lost = {id(event) for event in gpu}
    return drop(document, lambda event: id(event) in lost)


def lost_one_gemm(document: Document) -> Document:
    """With its launch, so that launches and kernels still balance."""
    gone = correlation(kernels(document, GEMM)[7])
    return drop(document, lambda event: correlation(event) == gone)


def lost_every_o_proj(document: Document) -> Document:
    """With their launches, from all layers."""
    gone = {correlation(event) for event in kernels(document, GEMM)[1::2]}
    return drop(document, lambda event: correlation(event) in gone)


def lost_launches(document: Document) -> Document:
    gone = correlation(kernels(document, GEMM)[0])
    runtime = "cuda_runtime"
    return drop(document, lambda e: e.get("cat") == runtime and correlation(e) == gone)


def empty_step(document: Document) -> Document:
    """An annotated step that contains nothing of the model."""
    mine = inside(document, "Qwen3Model")
    return drop(
        document,
        lambda e: e["name"].startswith("nn.Module") or correlation(e) in mine,
    )


def one_step_more(document: Document) -> Document:
    step = next(e for e in document["traceEvents"] if e["name"].startswith("step["))
    later = {**step, "ts": step["ts"] + step["dur"] + 1}
    document["traceEvents"].append(later)
    return document


def other_module_name(document: Document) -> Document:
    def edit(event: Event) -> bool:
        known = MODULE in event["name"]
        event["name"] = event["name"].replace(MODULE, "Qwen3AttentionMLA")
        return known

    return change(document, edit)


def two_ranks(document: Document) -> Document:
    """Merged as by SGLang's own tool: other processes, the same ids."""
    other = load(EAGER)

    def edit(event: Event) -> bool:
        event["pid"] = f"[TP01] {event['pid']}"
        return True

    document["traceEvents"] += change(other, edit)["traceEvents"]
    return document


def two_gpus(document: Document) -> Document:
    """Merged with distinct ids and processes: only the GPUs differ."""
    ids = {correlation(event) for event in kernels(document, GEMM)[:9]}

    def edit(event: Event) -> bool:
        if correlation(event) not in ids or event["cat"] not in GPU:
            return False
        event["args"]["device"] = 10
        return True

    return change(document, edit)


def ids_used_twice(document: Document) -> Document:
    one, other, *_ = (correlation(event) for event in kernels(document, GEMM))

    def edit(event: Event) -> bool:
        if correlation(event) != other:
            return False
        event["args"]["correlation"] = one
        return True

    return change(document, edit)


def launches_of_copies(document: Document, edit: Callable[[Event], None]) -> Document:
    ids = {correlation(event) for event in kernels(document, COPY)}

    def edited(event: Event) -> bool:
        mine = event.get("cat") == "cuda_runtime" and correlation(event) in ids
        if mine:
            edit(event)
        return mine

    return change(document, edited)


def launched_elsewhere(document: Document) -> Document:
    """By another thread, which is in no module."""
    return launches_of_copies(document, lambda event: event.update(tid=4242))


def launched_early(document: Document) -> Document:
    """Before the module starts, because the clocks differ."""
    starts = [call["ts"] for call in spans(document, MODULE)]

    def earlier(event: Event) -> None:
        event["ts"] = max(at for at in starts if at <= event["ts"]) - event["dur"] - 1

    return launches_of_copies(document, earlier)


def copied_by_memory_calls(document: Document) -> Document:
    """Copies by memory calls, whose records the profiler lost."""
    gone = {id(event) for event in kernels(document, COPY)}
    launches_of_copies(document, lambda event: event.update(name="hipMemcpyAsync"))
    return drop(document, lambda event: id(event) in gone)


_HIDDEN: dict[str, tuple[Callable[[Document], Document], str]] = {
    "another thread": (launched_elsewhere, "no other kernel runs within a call"),
    "another time": (launched_early, "no other kernel runs within a call"),
    "lost memory calls": (
        copied_by_memory_calls,
        "memory calls in modules have records",
    ),
}


@pytest.mark.parametrize("what", _HIDDEN)
@pytest.mark.parametrize("compared", [False, True], ids=["alone", "compared"])
def test_copies_outside_every_module(what: str, compared: bool, tmp_path: Path) -> None:
    """The copies ran: every layer has two."""
    damage, control = _HIDDEN[what]
    assessment = judge(tmp_path, damage(load(EAGER)), load(EAGER) if compared else None)
    assert assessment.verdict is Verdict.INVALID
    assert assessment.analysed.totals.copies == 0
    assert control in broken(assessment)


def backwards(document: Document) -> Document:
    """A kernel that ends before it starts."""
    one = id(kernels(document, GEMM)[3])

    def edit(event: Event) -> bool:
        if id(event) == one:
            event["dur"] = -event["dur"]
        return id(event) == one

    return change(document, edit)


_BREAKS: dict[str, tuple[Callable[[Document], Document], str]] = {
    "no modules": (lost_all_modules, f"layers with a {MODULE}"),
    "a module missing": (lost_one_module, f"layers with a {MODULE}"),
    "a module missing, renumbered": (
        lost_one_module_and_renumbered,
        f"layers with a {MODULE}",
    ),
    "a layer missing": (lost_a_layer, f"layers with a {MODULE}"),
    "kernels dropped": (lost_kernels, "launches and kernels balance"),
    "a GEMM dropped whole": (lost_one_gemm, "2 GEMMs in every call"),
    "a launch dropped": (lost_launches, "every kernel joined to its launch"),
    "an empty step": (empty_step, f"layers with a {MODULE}"),
    "a step without its modules": (one_step_more, f"calls of {MODULE} in 2 steps"),
    "another module's name": (other_module_name, f"layers with a {MODULE}"),
    "two ranks in one file": (two_ranks, "one rank per file"),
    "two GPUs in one file": (two_gpus, "one rank per file"),
    "time that runs backwards": (backwards, "no kernel ends before it starts"),
    "ids used twice": (ids_used_twice, "unique correlation ids"),
}


@pytest.mark.parametrize("what", _BREAKS)
@pytest.mark.parametrize("compared", [False, True], ids=["alone", "compared"])
def test_a_broken_trace_is_invalid(what: str, compared: bool, tmp_path: Path) -> None:
    damage, control = _BREAKS[what]
    after = damage(without_copies(load(EAGER)))
    assessment = judge(tmp_path, after, load(EAGER) if compared else None)
    assert assessment.verdict is Verdict.INVALID
    assert control in broken(assessment)


@pytest.mark.parametrize("what", _BREAKS)
def test_a_broken_baseline_is_invalid(what: str, tmp_path: Path) -> None:
    damage, control = _BREAKS[what]
    assessment = judge(tmp_path, without_copies(load(EAGER)), damage(load(EAGER)))
    assert assessment.verdict is Verdict.INVALID
    assert f"baseline: {control}" in broken(assessment)


def test_a_missing_module_shows_in_its_parent(tmp_path: Path) -> None:
    """The decoder layer without attention shows it, even if 35 layers are expected."""
    after = lost_one_module(without_copies(load(EAGER)))
    assessment = judge(tmp_path, after, required=Requirement(MODULE, 35, 0))
    assert assessment.verdict is Verdict.INVALID
    assert "every parent module has one" in broken(assessment)


def test_a_gemm_dropped_from_all_layers(tmp_path: Path) -> None:
    after = lost_every_o_proj(without_copies(load(EAGER)))
    assessment = judge(tmp_path, after, load(EAGER))
    assert assessment.verdict is Verdict.INVALID
    assert "GEMMs per layer, as in the baseline" in broken(assessment)
    alone = judge(tmp_path, after, required=Requirement(MODULE, 36, 0, gemms=2))
    assert alone.verdict is Verdict.INVALID
    assert "GEMMs per layer" in broken(alone)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_copies_under_another_name(name: str, tmp_path: Path) -> None:
    assessment = judge(tmp_path, renamed(load(EAGER), OTHER_NAMES[name]), load(EAGER))
    assert assessment.verdict is Verdict.FAIL
    assert "the kernel count falls by the copies removed" in broken(assessment)


def test_copies_moved_out_of_the_module(tmp_path: Path) -> None:
    """To right before it, on the GPU too: attention is faster, but the model is not."""
    document = load(EAGER)
    first = {}
    for event in reversed(kernels(document, "")):
        first[call_of(document, event)] = event["ts"]
    before = {id(e): first[call_of(document, e)] - 1 for e in kernels(document, COPY)}
    document = launched_early(document)

    def earlier(event: Event) -> bool:
        event["ts"] = before.get(id(event), event["ts"])
        return id(event) in before

    assessment = judge(tmp_path, change(document, earlier), load(EAGER))
    assert assessment.verdict is Verdict.FAIL
    assert broken(assessment) == {"no copies move out of the module"}


def test_another_gemm_that_needs_no_copies(tmp_path: Path) -> None:
    """As if the tree no longer used the GEMM that the series is about."""

    def edit(event: Event) -> bool:
        known = event.get("cat") == "kernel" and event["name"].startswith(GEMM)
        if known:
            event["name"] = "_gemm_a8w8_blockscale_kernel"
        elif str(event.get("args", {}).get("kernel")).startswith(GEMM):
            event["args"]["kernel"] = "_gemm_a8w8_blockscale_kernel"
        return known

    assessment = judge(tmp_path, change(without_copies(load(EAGER)), edit), load(EAGER))
    assert assessment.verdict is Verdict.FAIL
    assert broken(assessment) == {"all other kernels match the baseline, in every call"}


def test_copies_under_another_name_in_one_of_two_steps(tmp_path: Path) -> None:
    """The other step is faster and gives the layer's time, but not its kernels."""
    folder = ROOT / "tests" / "data" / "traces" / "h200-m64"
    path = folder / "pristine-eager-TP-0-DECODE.trace.json.gz"
    copies = [
        event
        for event in sorted(load(path)["traceEvents"], key=lambda event: event["ts"])
        if event.get("cat") == "kernel" and COPY in event["name"]
    ]
    assert len(copies) == 24
    gone = {correlation(event) for event in copies[:12]}
    after = drop(load(path), lambda event: correlation(event) in gone)

    def edit(event: Event) -> bool:
        known = event.get("cat") == "kernel" and COPY in event["name"]
        event["name"] = "main_kernel" if known else event["name"]
        return known

    required = Requirement("DeepseekV2AttentionMLA", 3, 0)
    assessment = judge(tmp_path, change(after, edit), load(path), required=required)
    assert assessment.verdict is Verdict.FAIL
    assert broken(assessment) == {"all other kernels match the baseline, in every call"}


def scaled(document: Document) -> Document:
    """The GEMM after each copy takes block scales, as the GEMMs of the series do."""
    copies = kernels(document, COPY)
    stream = sorted(
        (e for e in document["traceEvents"] if e.get("cat") in GPU),
        key=lambda event: event["ts"],
    )
    for copy in copies:
        at = next(n for n, event in enumerate(stream) if event is copy)
        stream[at + 1]["name"] = "kernel_gemm_xdl_multi_d_blockscale_b_preshuffle"
    return document


@pytest.mark.parametrize("name", ["CatArrayBatchedCopy", "rocclr", "triton"])
def test_a_known_copy_before_a_scaled_gemm_counts(name: str, tmp_path: Path) -> None:
    assessment = judge(tmp_path, renamed(scaled(load(EAGER)), OTHER_NAMES[name]))
    assert assessment.verdict is not Verdict.PASS
    assert f"0 copies in every {MODULE}" in broken(assessment)


def test_an_unknown_kernel_before_a_scaled_gemm(tmp_path: Path) -> None:
    """Without a baseline, it may be a copy."""
    assessment = judge(tmp_path, renamed(scaled(load(EAGER)), "main_kernel"))
    assert assessment.verdict is Verdict.INVALID
    assert "kernels right before a block-scale GEMM are of a known kind" in broken(
        assessment
    )


def test_copies_in_one_layer_only(tmp_path: Path) -> None:
    left = {correlation(event) for event in kernels(load(EAGER), COPY)[2:]}
    after = drop(load(EAGER), lambda event: correlation(event) in left)
    assert judge(tmp_path, after).verdict is Verdict.FAIL
    assert judge(tmp_path, after, load(EAGER)).verdict is Verdict.FAIL


def test_swapped(tmp_path: Path) -> None:
    assessment = judge(tmp_path, load(EAGER), without_copies(load(EAGER)))
    assert assessment.verdict is Verdict.FAIL
    twice = Requirement(MODULE, 36, 2)
    assessment = judge(
        tmp_path, load(EAGER), without_copies(load(EAGER)), required=twice
    )
    assert assessment.verdict is Verdict.FAIL
    assert "copies vanish from every layer" in broken(assessment)


def test_compared_with_itself(tmp_path: Path) -> None:
    after = without_copies(load(EAGER))
    assert judge(tmp_path, after, after).verdict is Verdict.FAIL


def test_time_that_does_not_fall(tmp_path: Path) -> None:
    after = without_copies(load(EAGER))
    slower = {id(event) for event in kernels(after, GEMM)}

    def edit(event: Event) -> bool:
        if id(event) in slower:
            event["dur"] *= 1.05
        return id(event) in slower

    assessment = judge(tmp_path, change(after, edit), load(EAGER))
    assert assessment.verdict is Verdict.FAIL
    assert "time per layer falls by about the copies' time" in broken(assessment)


def test_another_load_than_the_baseline(tmp_path: Path) -> None:
    after = without_copies(load(EAGER))

    def faster(event: Event) -> bool:
        if event.get("cat") in GPU:
            event["dur"] *= 0.5
        return bool(event.get("cat") in GPU)

    assessment = judge(tmp_path, change(after, faster), load(EAGER))
    assert assessment.verdict is Verdict.INVALID
    assert "the rest of a layer takes as long as in the baseline" in broken(assessment)


def test_another_step_than_the_baseline(tmp_path: Path) -> None:
    def edit(event: Event) -> bool:
        known = bool(event["name"].startswith("step["))
        event["name"] = event["name"].replace("bs=15", "bs=16")
        return known

    after = change(without_copies(load(EAGER)), edit)
    assessment = judge(tmp_path, after, load(EAGER))
    assert assessment.verdict is Verdict.INVALID
    assert "steps, as in the baseline" in broken(assessment)


def test_the_wrong_rank(tmp_path: Path) -> None:
    """The file's name contradicts its content, or one file the other."""
    after = without_copies(load(EAGER))
    assessment = judge(tmp_path, after, name="x-TP-3-EXTEND.trace.json")
    assert assessment.verdict is Verdict.INVALID
    assert "the rank in the file's name" in broken(assessment)
    after["distributedInfo"] |= {"rank": 3, "world_size": 8}
    assessment = judge(tmp_path, after, load(EAGER), name="x-TP-3-EXTEND.trace.json")
    assert assessment.verdict is Verdict.INVALID
    assert "rank, as in the baseline" in broken(assessment)


def test_another_gpu(tmp_path: Path) -> None:
    after = without_copies(load(EAGER))
    after["deviceProperties"][0]["name"] = "AMD Instinct MI355X"
    assessment = judge(tmp_path, after, load(EAGER))
    assert assessment.verdict is Verdict.INVALID
    assert "GPU, as in the baseline" in broken(assessment)


# --- replays ------------------------------------------------------------------------


def replay(
    tmp_path: Path, document: Document, capture: Document, copies: int = 2
) -> Assessment:
    required = Requirement(MODULE, 36, copies)
    path = write(tmp_path / "replay.json", document)
    recorded = write(tmp_path / "capture.json", capture)
    return decide(analyse(path, required, [recorded]), None, required)


def captured_copies(document: Document) -> list[Event]:
    mine = inside(document, MODULE)
    return [
        event
        for event in document["traceEvents"]
        if COPY in event.get("args", {}).get("kernel", "")
        and correlation(event) in mine
    ]


def test_a_replay_passes_with_its_capture(tmp_path: Path) -> None:
    assert replay(tmp_path, load(REPLAY), load(CAPTURE)).verdict is Verdict.PASS


@pytest.mark.parametrize("keep", [448, 543, 0])
def test_kernels_of_a_replay_dropped(keep: int, tmp_path: Path) -> None:
    """ROCm 7.2's profiler kept 448 of 512 kernels, or none."""
    document = load(REPLAY)
    graph = next(e for e in document["traceEvents"] if e["name"] == "hipGraphLaunch")
    replayed = [
        event
        for event in document["traceEvents"]
        if event.get("cat") in GPU and correlation(event) == correlation(graph)
    ]
    assert len(replayed) == 544
    lost = {id(event) for event in replayed[keep:]}
    after = drop(document, lambda event: id(event) in lost)
    for copies in (0, 2):
        assessment = replay(tmp_path, after, load(CAPTURE), copies)
        assert assessment.verdict is Verdict.INVALID
        assert "replays aligned with the capture" in broken(assessment)


def test_a_replay_of_another_graph(tmp_path: Path) -> None:
    """The capture is from a tree with the series, the replay from one without."""
    capture = load(CAPTURE)
    gone = {id(event) for event in captured_copies(capture)}
    assert len(gone) == 72
    capture = drop(capture, lambda event: id(event) in gone)
    for copies in (0, 2):
        assessment = replay(tmp_path, load(REPLAY), capture, copies)
        assert assessment.verdict is Verdict.INVALID
        assert "replays aligned with the capture" in broken(assessment)


def test_two_captured_launches_swapped(tmp_path: Path) -> None:
    capture = load(CAPTURE)
    copy = captured_copies(capture)[0]
    later = next(
        event
        for event in capture["traceEvents"]
        if event["ts"] > copy["ts"]
        and event.get("args", {}).get("kernel", copy["args"].get("kernel"))
        != copy["args"]["kernel"]
    )
    names = copy["args"]["kernel"], later["args"]["kernel"]
    later["args"]["kernel"], copy["args"]["kernel"] = names
    assessment = replay(tmp_path, load(REPLAY), capture)
    assert assessment.verdict is Verdict.INVALID
    assert "replays aligned with the capture" in broken(assessment)


def test_a_capture_without_names(tmp_path: Path) -> None:
    """CUDA's profiler does not name the kernels of captured launches."""

    def edit(event: Event) -> bool:
        return event.get("args", {}).pop("kernel", None) is not None

    assessment = replay(tmp_path, load(REPLAY), change(load(CAPTURE), edit))
    assert assessment.verdict is Verdict.INVALID
    assert "capture: captured launches are named" in broken(assessment)


def test_a_capture_without_modules(tmp_path: Path) -> None:
    assessment = replay(tmp_path, load(REPLAY), lost_all_modules(load(CAPTURE)), 0)
    assert assessment.verdict is Verdict.INVALID
    assert f"capture: layers with a {MODULE}" in broken(assessment)


def run_eagerly(capture: Document, replayed: Document) -> Document:
    """The capture as if its launches had run, each with its kernel."""
    graph = next(e for e in replayed["traceEvents"] if e["name"] == "hipGraphLaunch")
    ran = sorted(
        (
            event
            for event in replayed["traceEvents"]
            if event.get("cat") in GPU and correlation(event) == correlation(graph)
        ),
        key=lambda event: event["ts"],
    )
    gpu = {correlation(e) for e in capture["traceEvents"] if e.get("cat") in GPU}
    launches = [
        event
        for event in sorted(capture["traceEvents"], key=lambda event: event["ts"])
        if "LaunchKernel" in event["name"] and correlation(event) not in gpu
    ]
    assert len(launches) == len(ran)
    for launch, work in zip(launches, ran, strict=True):
        launch["args"].pop("kernel")
        args = {**work["args"], "correlation": correlation(launch)}
        capture["traceEvents"].append({**work, "args": args})
    return capture


def test_an_eager_step_as_capture(tmp_path: Path) -> None:
    """Needed on CUDA, whose captures do not name kernels."""
    eager = run_eagerly(load(CAPTURE), load(REPLAY))
    assessment = replay(tmp_path, load(REPLAY), eager)
    assert assessment.verdict is Verdict.PASS, broken(assessment)
    gone = kernels(eager, COPY)[0]
    other = drop(eager, lambda event: correlation(event) == correlation(gone))
    assert replay(tmp_path, load(REPLAY), other).verdict is Verdict.INVALID
