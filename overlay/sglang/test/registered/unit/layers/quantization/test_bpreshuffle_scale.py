"""Pre-transposed activation scales: producer, consumer and gather, on a CPU.

The quantizers below are plain torch. Like AITER's kernels they store every scale
where its strides say and hand the buffer back in one of the presentations that
AITER has used; nothing here is given the layout that it then checks. What CK
sees is modelled by reading the storage from the data pointer on, as (groups, M).
"""

import copy
import functools
import gc
import os
import pickle
import unittest
import weakref
from types import SimpleNamespace
from unittest import mock

import torch

from sglang.srt.layers import quantization
from sglang.srt.layers.quantization import bpreshuffle_scale
from sglang.srt.layers.quantization.bpreshuffle_scale import (
    qkv_a_projection,
    quant_pretransposed_scale,
    x_scale_for_gemm,
)
from sglang.test.ci.ci_register import register_cpu_ci

register_cpu_ci(est_time=5, suite="base-a-test-cpu")

SWITCH = "SGLANG_AITER_PRETRANSPOSED_SCALE"
MARKER = "_aiter_bpreshuffle_layout"
FP8 = torch.float8_e4m3fn
GROUP_128_FP8 = {"group_size": 128, "dtype_quant": FP8}

# With M or groups below 2 all layouts coincide, so most shapes have more.
SHAPES = [(m, groups) for m in (0, 1, 2, 3, 17) for groups in (1, 2, 3, 5, 17)]
TELLING_SHAPES = [(m, groups) for m, groups in SHAPES if m > 1 and groups > 1]


def group_quant(x, group_size, dtype_quant, scale):
    """Quantize into a new q; write the scales through the strides of ``scale``."""
    m, n = x.shape
    blocks = x.view(m, n // group_size, group_size)
    scale.copy_(blocks.abs().amax(dim=-1) / torch.finfo(dtype_quant).max)
    return (blocks / scale.unsqueeze(-1)).to(dtype_quant).view(m, n)


def lying_quant(
    x, group_size=128, dtype_quant=FP8, keep_input=False, transpose_scale=False
):
    """As AITER's RMSNorm: nested outputs, transposed bytes in a contiguous view."""
    m, groups = x.shape[0], x.shape[1] // group_size
    if transpose_scale:
        stored = torch.empty(groups, m)
        q = group_quant(x, group_size, dtype_quant, stored.t())
        scale = stored.view(m, groups)
    else:
        scale = torch.empty(m, groups)
        q = group_quant(x, group_size, dtype_quant, scale)
    return (q, scale), x if keep_input else None, None, None


def honest_quant(x, group_size, dtype_quant=FP8, transpose_scale=False):
    """As AITER's flatten: a pair, transposed bytes behind strides (1, M)."""
    m, groups = x.shape[0], x.shape[1] // group_size
    scale = torch.empty(groups, m).t() if transpose_scale else torch.empty(m, groups)
    return group_quant(x, group_size, dtype_quant, scale), scale


def older_quant(x, group_size, dtype_quant=FP8):
    """As AITER's flatten before it could transpose."""
    scale = torch.empty(x.shape[0], x.shape[1] // group_size)
    return group_quant(x, group_size, dtype_quant, scale), scale


def deaf_quant(x, group_size, dtype_quant=FP8, transpose_scale=False):
    """Takes the parameter and ignores it."""
    return older_quant(x, group_size, dtype_quant)


def padded_columns_quant(x, group_size, dtype_quant=FP8, transpose_scale=False):
    """Transposed, but with a gap between columns that the GEMM cannot know of."""
    m, groups = x.shape[0], x.shape[1] // group_size
    scale = torch.empty(groups, m + 1).t()[:m]
    return group_quant(x, group_size, dtype_quant, scale), scale


def padded_rows_quant(x, group_size, dtype_quant=FP8, transpose_scale=False):
    m, groups = x.shape[0], x.shape[1] // group_size
    scale = torch.empty(m, groups + 1)[:, :groups]
    return group_quant(x, group_size, dtype_quant, scale), scale


QUANTIZERS = (lying_quant, honest_quant)


def activations(m, groups, group_size=128):
    generator = torch.Generator().manual_seed(1000 * m + groups)
    return torch.randn(m, groups * group_size, generator=generator)


def q_and_scale(outputs):
    return outputs[0] if isinstance(outputs[0], tuple) else outputs


def row_major(quant, x):
    return q_and_scale(quant(x, **GROUP_128_FP8))


def pretransposed(quant, x):
    return q_and_scale(quant_pretransposed_scale(quant, None, x, **GROUP_128_FP8))


def read_by_ck(x_scale):
    m, groups = x_scale.shape
    return x_scale.as_strided((groups, m), (m, 1)).t()


def read_raw(tensor):
    """The bytes a collective sends: numel elements from the data pointer on."""
    return tensor.as_strided((tensor.numel(),), (1,))


def old_consumer(x_scale):
    """What the consumer did for CK before scales could be pre-transposed."""
    return x_scale.transpose(-1, -2).contiguous().view(*x_scale.shape)


def for_each(shapes=SHAPES, quantizers=QUANTIZERS):
    """Run a test method on every quantizer and shape, each as a subtest."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            for quant in quantizers:
                for m, groups in shapes:
                    with self.subTest(quant=quant.__name__, m=m, groups=groups):
                        test(self, quant, activations(m, groups))

        return run

    return decorate


class PretransposedScaleCase(unittest.TestCase):
    """A process in which CK's GEMM is in use and the switch is unset."""

    def setUp(self):
        mode = mock.patch.object(bpreshuffle_scale, "_MODE", "1")
        mode.start()
        self.addCleanup(mode.stop)
        self.forget()
        self.addCleanup(self.forget)
        consumer = mock.patch.object(
            bpreshuffle_scale, "_consumer_reads_transposed", return_value=True
        )
        self.consumer_reads_transposed = consumer.start()
        self.addCleanup(consumer.stop)

    @staticmethod
    def forget():
        bpreshuffle_scale._probed.cache_clear()
        bpreshuffle_scale._said_unchecked.cache_clear()
        bpreshuffle_scale._uses.clear()
        bpreshuffle_scale._answers.clear()

    def switch(self, value):
        """As if the module were imported with this value set."""
        with mock.patch.dict(os.environ, {SWITCH: value}):
            bpreshuffle_scale._MODE = bpreshuffle_scale._mode_from_environ()

    def assert_same(self, actual, expected):
        self.assertEqual(actual.shape, expected.shape)
        self.assertEqual(actual.dtype, expected.dtype)
        self.assertTrue(torch.equal(actual, expected), f"{actual}\n{expected}")

    def assert_both_gemms_read(self, x_scale, expected):
        self.assert_same(read_by_ck(x_scale_for_gemm(x_scale, True)), expected)
        self.assert_same(x_scale_for_gemm(x_scale, False), expected)


class TestProducer(PretransposedScaleCase):
    @for_each(TELLING_SHAPES)
    def test_the_models_of_aiter_differ_as_they_should(self, quant, x):
        _, expected = row_major(quant, x)
        _, scale = q_and_scale(quant(x, transpose_scale=True, **GROUP_128_FP8))
        self.assert_same(read_by_ck(scale), expected)
        self.assertFalse(torch.equal(read_by_ck(expected), expected))
        self.assertEqual(torch.equal(scale, expected), quant is honest_quant)

    @for_each()
    def test_values_bytes_and_marker(self, quant, x):
        q, scale = pretransposed(quant, x)
        expected_q, expected = row_major(quant, x)
        self.assertTrue(torch.equal(q.view(torch.uint8), expected_q.view(torch.uint8)))
        self.assert_same(scale, expected)
        self.assert_same(read_by_ck(scale), expected)
        self.assertIs(getattr(scale, MARKER), True)
        if min(scale.shape) > 1:
            self.assertEqual(scale.stride(), (1, scale.shape[0]))

    @for_each()
    def test_scale_is_not_copied(self, quant, x):
        written = []

        def recorded(x, group_size, dtype_quant, transpose_scale=False):
            outputs = quant(x, group_size, dtype_quant, transpose_scale=transpose_scale)
            written.append(q_and_scale(outputs)[1])
            return outputs

        _, scale = pretransposed(recorded, x)
        self.assertEqual(len(written), 1)
        for reader in (
            scale,
            x_scale_for_gemm(scale, True),
            x_scale_for_gemm(scale, False),
        ):
            self.assertEqual(reader.data_ptr(), written[0].data_ptr())
            self.assertEqual(reader.shape, written[0].shape)

    def test_other_outputs_and_arguments_pass_through(self):
        x = activations(3, 2)
        outputs = quant_pretransposed_scale(
            lying_quant, None, x, keep_input=True, **GROUP_128_FP8
        )
        self.assertEqual(len(outputs), 4)
        self.assertIs(outputs[1], x)
        self.assertEqual(outputs[2:], (None, None))
        self.assertEqual(
            len(quant_pretransposed_scale(honest_quant, None, x, **GROUP_128_FP8)), 2
        )

    @for_each(TELLING_SHAPES)
    def test_inference_mode(self, quant, x):
        with torch.inference_mode():
            _, scale = pretransposed(quant, x)
            self.assert_both_gemms_read(scale, row_major(quant, x)[1])
            self.assertIs(getattr(scale, MARKER), True)

    def test_unusable_layout_is_refused(self):
        for quant in (padded_columns_quant, padded_rows_quant):
            named = rf"{quant.__name__} .*{SWITCH}=0"
            with self.assertRaisesRegex(RuntimeError, named):
                pretransposed(quant, activations(3, 2))


class TestProducerLeavesAlone(PretransposedScaleCase):
    def assert_untouched(self, *args, **kwargs):
        calls = []
        outputs = object()

        def quant(x, group_size=128, dtype_quant=FP8, transpose_scale=False):
            calls.append((x, group_size, dtype_quant, transpose_scale))
            return outputs

        self.assertIs(quant_pretransposed_scale(quant, None, *args, **kwargs), outputs)
        self.assertEqual(len(calls), 1)
        self.assertIs(calls[0][-1], False)

    def test_other_group_sizes(self):
        for group_size in (32, 64, 256):
            self.assert_untouched(1, group_size=group_size, dtype_quant=FP8)

    def test_other_dtypes(self):
        for dtype in (torch.float8_e4m3fnuz, torch.float8_e5m2, torch.int8):
            self.assert_untouched(1, group_size=128, dtype_quant=dtype)

    def test_format_not_named(self):
        self.assert_untouched(1)
        self.assert_untouched(1, group_size=128)
        self.assert_untouched(1, dtype_quant=FP8)
        self.assert_untouched(1, 128, FP8)

    def test_other_consumers(self):
        self.consumer_reads_transposed.return_value = False
        self.assert_untouched(1, **GROUP_128_FP8)

    def test_is_asked_about_the_projection(self):
        x = activations(3, 2)
        quant_pretransposed_scale(honest_quant, None, x, **GROUP_128_FP8)
        self.consumer_reads_transposed.assert_called_once_with(None)

    def test_is_asked_once_for_each_projection(self):
        x = activations(3, 2)
        for reads in (True, False, True):
            self.consumer_reads_transposed.reset_mock()
            self.consumer_reads_transposed.return_value = reads
            # One may get the memory, and so the id, of the one before it.
            projection = torch.nn.Linear(1, 1)
            for quant in (*QUANTIZERS, older_quant):
                self.consumer_reads_transposed.reset_mock()
                for _ in range(3):
                    outputs = quant_pretransposed_scale(
                        quant, projection, x, **GROUP_128_FP8
                    )
                    marked = hasattr(q_and_scale(outputs)[1], MARKER)
                    self.assertIs(marked, reads and quant is not older_quant)
                self.consumer_reads_transposed.assert_called_once_with(projection)
            self.consumer_reads_transposed.reset_mock()
            self.assertEqual(len(bpreshuffle_scale._answers), 1)
            del projection
            self.assertFalse(bpreshuffle_scale._answers, "it is kept alive")

    def test_another_projection_of_the_same_id(self):
        x = activations(3, 2)
        first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        quant_pretransposed_scale(honest_quant, first, x, **GROUP_128_FP8)
        answer = bpreshuffle_scale._answers.pop(id(first))
        bpreshuffle_scale._answers[id(second)] = answer
        self.consumer_reads_transposed.return_value = False
        _, scale = quant_pretransposed_scale(honest_quant, second, x, **GROUP_128_FP8)
        self.assertFalse(hasattr(scale, MARKER))

    def test_switched_off(self):
        self.switch("0")
        self.assert_untouched(1, **GROUP_128_FP8)

    @for_each()
    def test_row_major_scale_is_as_before(self, quant, x):
        self.switch("0")
        _, scale = pretransposed(quant, x)
        _, expected = row_major(quant, x)
        self.assertEqual(scale.stride(), expected.stride())
        self.assertFalse(hasattr(scale, MARKER))
        self.assert_both_gemms_read(scale, expected)

    def test_quantizer_without_the_parameter_warns_once(self):
        with self.assertLogs(bpreshuffle_scale.logger, "WARNING") as logs:
            for m, groups in SHAPES:
                x = activations(m, groups)
                _, scale = pretransposed(older_quant, x)
                _, expected = row_major(older_quant, x)
                self.assertTrue(scale.is_contiguous())
                self.assertFalse(hasattr(scale, MARKER))
                self.assert_both_gemms_read(scale, expected)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("older_quant", logs.output[0])

    def test_nothing_is_said_of_quantizers_that_can(self):
        with self.assertNoLogs(bpreshuffle_scale.logger):
            for quant in QUANTIZERS:
                pretransposed(quant, activations(3, 2))


class TestPredicate(unittest.TestCase):
    def reads_transposed(self, projection, bpreshuffle=True):
        fp8_utils = SimpleNamespace(
            _use_aiter_bpreshuffle_gfx95=bpreshuffle,
            use_aiter_triton_gemm_w8a8_tuned_gfx950=lambda n, k: (n, k) == (8, 4),
        )
        with mock.patch.object(quantization, "fp8_utils", fp8_utils, create=True):
            return bpreshuffle_scale._consumer_reads_transposed(projection)

    def test_is_the_consumers_own(self):
        for n, k, for_ck in ((8, 4, False), (4, 8, True), (8, 8, True)):
            projection = SimpleNamespace(weight=torch.empty(n, k))
            self.assertIs(self.reads_transposed(projection), for_ck)
            self.assertIs(self.reads_transposed(projection, bpreshuffle=False), False)

    def test_unknown_projection_counts_as_cks(self):
        self.assertIs(self.reads_transposed(None), True)
        self.assertIs(self.reads_transposed(None, bpreshuffle=False), False)

    def test_projection_of_the_attention_input(self):
        class Attention:
            fused_qkv_a_proj_with_mqa = object()

            def prepare_qkv_latent(self):
                pass

        attention = Attention()
        self.assertIs(
            qkv_a_projection(attention.prepare_qkv_latent),
            attention.fused_qkv_a_proj_with_mqa,
        )
        for unknown in (None, lambda: None, attention, self.fail):
            self.assertIsNone(qkv_a_projection(unknown))


class TestConsumer(PretransposedScaleCase):
    @for_each()
    def test_both_gemms_read_the_row_major_values(self, quant, x):
        _, scale = pretransposed(quant, x)
        _, expected = row_major(quant, x)
        self.assert_both_gemms_read(scale, expected)
        self.assertTrue(x_scale_for_gemm(scale, True).is_contiguous())

    @for_each()
    def test_many_consumers_change_nothing(self, quant, x):
        _, scale = pretransposed(quant, x)
        _, expected = row_major(quant, x)
        before = (
            scale.data_ptr(),
            scale.shape,
            scale.stride(),
            scale._version,
            dict(scale.__dict__),
        )
        for _ in range(3):
            self.assert_both_gemms_read(scale, expected)
        after = (
            scale.data_ptr(),
            scale.shape,
            scale.stride(),
            scale._version,
            dict(scale.__dict__),
        )
        self.assertEqual(after, before)
        self.assert_same(scale, expected)

    def test_unmarked_scale_is_treated_as_before(self):
        for m, groups in SHAPES:
            values = activations(m, groups, group_size=1)
            for x_scale in (
                values,
                values.t().contiguous().t(),
                torch.cat([values, values])[m:],
                values.t().contiguous().t()[: m // 2],
                values[:, : groups // 2],
            ):
                with self.subTest(shape=x_scale.shape, stride=x_scale.stride()):
                    self.assertIs(x_scale_for_gemm(x_scale, False), x_scale)
                    old = old_consumer(x_scale)
                    new = x_scale_for_gemm(x_scale, True)
                    self.assert_same(new, old)
                    self.assertEqual(new.stride(), old.stride())
                    self.assertEqual(
                        new.data_ptr() == x_scale.data_ptr(),
                        old.data_ptr() == x_scale.data_ptr(),
                    )
                    self.assertFalse(hasattr(new, MARKER))

    @for_each(TELLING_SHAPES)
    def test_lost_marker_is_harmless(self, quant, x):
        _, scale = pretransposed(quant, x)
        _, expected = row_major(quant, x)
        last_first = torch.arange(x.shape[0] - 1, -1, -1)
        for lose in (
            lambda s: s[:],
            lambda s: s[1:],
            lambda s: s[:-1],
            lambda s: s[:, 1:],
            lambda s: s.clone(),
            lambda s: s.detach(),
            lambda s: s.contiguous(),
            lambda s: s.split(1)[0],
            lambda s: torch.cat([s, s]),
            lambda s: s[last_first],
        ):
            lost = lose(scale)
            self.assertFalse(hasattr(lost, MARKER))
            self.assert_both_gemms_read(lost, lose(expected))

    @for_each()
    def test_kept_marker_is_still_true(self, quant, x):
        _, scale = pretransposed(quant, x)
        kept = copy.deepcopy(scale)
        self.assertIs(getattr(kept, MARKER), True)
        self.assert_both_gemms_read(kept, row_major(quant, x)[1])

    @for_each()
    def test_overwritten_in_place(self, quant, x):
        _, scale = pretransposed(quant, x)
        _, expected = row_major(quant, 3 * x)
        scale.copy_(expected)
        self.assert_both_gemms_read(scale, expected)

    def replacements(self, quant, x):
        """Marked scales that are no longer where the producer left them."""

        def made():
            return pretransposed(quant, x)[1]

        other = pretransposed(quant, 3 * x)[1]
        adopted = other[:]
        vars(adopted).update(vars(made()))
        yield adopted
        reset = made()
        reset.set_(other)
        yield reset
        replaced = made()
        replaced.data = other.data
        yield replaced
        sent = pickle.loads(pickle.dumps(made()))
        self.assertIs(getattr(sent, MARKER), True)
        yield sent.copy_(other)
        # As if it had been given the memory of the one that was sent.
        first = made()
        sent = pickle.loads(pickle.dumps(first))
        sent.data = first.data
        yield sent.copy_(other)

    @for_each()
    def test_bytes_that_are_replaced(self, quant, x):
        _, expected = row_major(quant, 3 * x)
        for scale in self.replacements(quant, x):
            self.assert_both_gemms_read(scale, expected)

    @for_each(TELLING_SHAPES)
    def test_layout_that_is_replaced(self, quant, x):
        for new in (
            lambda data: data.contiguous(),
            lambda data: data.t().contiguous().view(data.shape),
            lambda data: data.as_strided(data.shape, (data.shape[1], 1)),
            lambda data: data[:-1],
            lambda data: data[1:],
            lambda data: data[:, 1:],
            lambda data: data[:, :-1],
        ):
            _, scale = pretransposed(quant, x)
            scale.data = new(scale.data)
            if scale.t().is_contiguous():
                self.assert_both_gemms_read(scale, scale.clone())
                continue
            for bpreshuffle in (True, False):
                with self.assertRaisesRegex(RuntimeError, f"marked {MARKER} but"):
                    x_scale_for_gemm(scale, bpreshuffle)

    @for_each()
    def test_scale_is_freed_with_its_last_reference(self, quant, x):
        for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            with mode():
                _, scale = pretransposed(quant, x)
                x_scale_for_gemm(scale, True)
                freed = weakref.ref(scale)
                gc.disable()
                try:
                    del scale
                    self.assertIsNone(freed())
                finally:
                    gc.enable()

    @for_each(TELLING_SHAPES)
    def test_foreign_marker_is_refused(self, quant, x):
        _, scale = q_and_scale(quant(x, transpose_scale=True, **GROUP_128_FP8))
        if quant is honest_quant:
            scale = scale[1:]  # Still honest, but CK would read the gaps.
        setattr(scale, MARKER, True)
        for bpreshuffle in (True, False):
            with self.assertRaisesRegex(RuntimeError, f"marked {MARKER} but"):
                x_scale_for_gemm(scale, bpreshuffle)


class TestGather(PretransposedScaleCase):
    """Before a gather along the rows, ``contiguous()`` makes the bytes row-major."""

    @for_each()
    def test_gathered_scale_is_right(self, quant, x):
        ranks = [x, 2 * x]
        sent = [read_raw(pretransposed(quant, rank)[1].contiguous()) for rank in ranks]
        gathered = torch.cat(sent).view(2 * x.shape[0], x.shape[1] // 128)
        expected = torch.cat([row_major(quant, rank)[1] for rank in ranks])
        self.assert_same(gathered, expected)
        self.assert_both_gemms_read(gathered, expected)

    @for_each(TELLING_SHAPES)
    def test_without_contiguous_it_would_be_wrong(self, quant, x):
        _, scale = pretransposed(quant, x)
        gathered = read_raw(scale).view(scale.shape)
        self.assertFalse(torch.equal(gathered, row_major(quant, x)[1]))


class TestSwitch(PretransposedScaleCase):
    def marks(self):
        return hasattr(pretransposed(honest_quant, activations(3, 2))[1], MARKER)

    def test_values(self):
        with mock.patch.dict(os.environ):
            os.environ.pop(SWITCH, None)
            self.assertEqual(bpreshuffle_scale._mode_from_environ(), "1")
        for value, marks in (("1", True), ("0", False), ("check", True)):
            self.switch(value)
            self.assertIs(self.marks(), marks, value)

    def test_bad_values_are_refused(self):
        for value in ("", "true", "2", "CHECK"):
            with self.assertRaisesRegex(ValueError, f"{SWITCH}='{value}'"):
                self.switch(value)

    def test_does_not_change_the_consumer(self):
        _, scale = pretransposed(honest_quant, activations(3, 2))
        self.switch("0")
        self.assert_both_gemms_read(
            scale, row_major(honest_quant, activations(3, 2))[1]
        )


class TestCheckMode(PretransposedScaleCase):
    def setUp(self):
        super().setUp()
        self.switch("check")
        self.asked = []

    def counted(self, quant):
        def counted_quant(x, group_size, dtype_quant, transpose_scale=False):
            self.asked.append(transpose_scale)
            return quant(x, group_size, dtype_quant, transpose_scale=transpose_scale)

        return counted_quant

    @for_each()
    def test_right_producers_pass(self, quant, x):
        _, scale = pretransposed(quant, x)
        self.assert_both_gemms_read(scale, row_major(quant, x)[1])

    @for_each(TELLING_SHAPES, quantizers=(deaf_quant,))
    def test_deaf_producer_is_caught_at_either_gemm(self, quant, x):
        _, scale = quant_pretransposed_scale(quant, None, x, **GROUP_128_FP8)
        for bpreshuffle, gemm in ((True, "bpreshuffle"), (False, "Triton")):
            with self.assertRaises(RuntimeError) as caught:
                x_scale_for_gemm(scale, bpreshuffle)
            message = str(caught.exception)
            self.assertIn(f"deaf_quant called by {self._testMethodName}", message)
            self.assertRegex(message, r"test_bpreshuffle_scale\.py:\d+, ")
            self.assertIn(f"read by the {gemm} GEMM", message)
            self.assertIn(f"{SWITCH}=0", message)

    def test_later_corruption_is_caught(self):
        _, scale = pretransposed(honest_quant, activations(3, 2))
        scale[2, 1] += 1
        with self.assertRaisesRegex(RuntimeError, "wrong at 1 of 6 places"):
            x_scale_for_gemm(scale, True)

    def test_every_bit_of_every_place_is_compared(self):
        for m, groups in ((1, 3), (3, 1), (3, 2)):
            for row in range(m):
                for group in range(groups):
                    for bpreshuffle in (True, False):
                        _, scale = pretransposed(honest_quant, activations(m, groups))
                        scale.view(torch.int32)[row, group] ^= 1
                        with self.assertRaisesRegex(RuntimeError, "wrong at 1 of"):
                            x_scale_for_gemm(scale, bpreshuffle)

    def test_equal_values_of_other_bits_are_a_difference(self):
        for true, stored in ((0.0, -0.0), (float("nan"), -float("nan"))):

            def quant(x, group_size, dtype_quant=FP8, transpose_scale=False):
                scale = torch.full((3, 2), stored if transpose_scale else true)
                return x, scale.t().contiguous().t() if transpose_scale else scale

            _, scale = pretransposed(quant, activations(3, 2))
            with self.assertRaisesRegex(RuntimeError, "wrong at 6 of 6 places"):
                x_scale_for_gemm(scale, True)

    def test_nan_is_no_difference(self):
        x = activations(3, 2)
        x[1, 5] = float("nan")
        _, scale = pretransposed(honest_quant, x)
        self.assertTrue(scale.isnan().any())
        for bpreshuffle in (True, False):
            x_scale_for_gemm(scale, bpreshuffle)

    def test_first_uses_of_each_shape_at_each_site(self):
        quant = self.counted(honest_quant)
        two_sites = (
            lambda x: quant_pretransposed_scale(quant, None, x, **GROUP_128_FP8),
            lambda x: quant_pretransposed_scale(quant, None, x, **GROUP_128_FP8),
        )
        with mock.patch.object(bpreshuffle_scale, "_CHECKED_USES", 2):
            for site in two_sites:
                for m in (2, 3):
                    self.asked.clear()
                    for _ in range(5):
                        x_scale_for_gemm(site(activations(m, 2))[1], True)
                    self.assertEqual(self.asked.count(True), 5)
                    self.assertEqual(self.asked.count(False), 2)

    def test_no_use_is_checked_beyond_the_limit(self):
        with mock.patch.object(bpreshuffle_scale, "_CHECKED_USES", 1):
            _, scale = pretransposed(deaf_quant, activations(3, 2))
            with self.assertRaises(RuntimeError):
                x_scale_for_gemm(scale, True)
            x_scale_for_gemm(scale, True)

    def test_nothing_is_recomputed_or_compared_in_graph_capture(self):
        x = activations(3, 2)
        _, wrong = pretransposed(deaf_quant, x)
        with (
            mock.patch.multiple(
                torch.cuda,
                is_initialized=lambda: True,
                is_current_stream_capturing=lambda: True,
            ),
            self.assertLogs(bpreshuffle_scale.logger, "WARNING") as logs,
        ):
            x_scale_for_gemm(wrong, True)
            _, scale = pretransposed(self.counted(honest_quant), x)
        self.assertEqual(self.asked, [True])
        self.assertEqual(len(logs.output), 1)
        self.assertIn(f"{SWITCH}=check does not check", logs.output[0])
        self.assert_both_gemms_read(scale, row_major(honest_quant, x)[1])
        with self.assertRaises(RuntimeError):
            x_scale_for_gemm(wrong, True)

    def test_nothing_is_recomputed_outside_check_mode(self):
        self.switch("1")
        _, scale = pretransposed(self.counted(honest_quant), activations(3, 2))
        x_scale_for_gemm(scale, True)
        self.assertEqual(self.asked, [True])


class TestCompiled(PretransposedScaleCase):
    """A graph break would be an error: SGLang compiles with fullgraph=True."""

    def setUp(self):
        super().setUp()
        self.addCleanup(torch._dynamo.reset)
        # Dynamo does not trace a mock.
        consumer = mock.patch.object(
            bpreshuffle_scale, "_consumer_reads_transposed", lambda projection: True
        )
        consumer.start()
        self.addCleanup(consumer.stop)

    def compiled(self, quant, bpreshuffle):
        def whole(x):
            q, scale = pretransposed(quant, x)
            return q, scale, x_scale_for_gemm(scale, bpreshuffle)

        torch._dynamo.reset()
        return whole, torch.compile(whole, fullgraph=True, backend="eager")

    def test_is_what_eager_computes(self):
        for mode in ("0", "1", "check"):
            self.switch(mode)
            for quant in (lying_quant, honest_quant, older_quant):
                for bpreshuffle in (True, False):
                    whole, compiled = self.compiled(quant, bpreshuffle)
                    for m in (2, 3):
                        x = activations(m, 2)
                        for got, expected in zip(compiled(x), whole(x), strict=True):
                            self.assert_same(got.float(), expected.float())
                            self.assertEqual(got.stride(), expected.stride())

    def test_check_mode_says_once_that_it_is_off(self):
        self.switch("check")
        with self.assertLogs(bpreshuffle_scale.logger, "WARNING") as logs:
            for quant in (deaf_quant, lying_quant):
                _, compiled = self.compiled(quant, True)
                compiled(activations(3, 2))
        self.assertEqual(len(logs.output), 1)
        self.assertIn(f"{SWITCH}=check does not check", logs.output[0])

    def test_scale_from_outside(self):
        """Made eagerly, marked or not: what is compiled for one is not run on another."""
        x = activations(3, 2)
        _, expected = row_major(honest_quant, x)
        _, marked = pretransposed(honest_quant, x)
        for bpreshuffle in (True, False):
            torch._dynamo.reset()
            compiled = torch.compile(
                lambda s, b=bpreshuffle: x_scale_for_gemm(s, b),
                fullgraph=True,
                backend="eager",
            )
            for scale in (marked, expected, marked[:], marked.contiguous(), marked):
                got = compiled(scale)
                self.assert_same(read_by_ck(got) if bpreshuffle else got, expected)


if __name__ == "__main__":
    unittest.main()
