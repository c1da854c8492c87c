"""Lines that trainers print: what is a measurement, what is a message, what is neither."""

from __future__ import annotations

import gzip
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_systems_debugger.core import SeriesKind, SignalSet, UnsupportedFormatError
from ml_systems_debugger.ingestion import LogIngestor, open_source
from ml_systems_debugger.ingestion._events import is_event


def read(text: str) -> dict[str, tuple[list[int], list[Any]]]:
    signals = LogIngestor().ingest(text.encode())
    return {
        ("train:" if one.key.split == "train" else "") + str(one.key): (
            one.steps.tolist(),
            one.values.tolist(),
        )
        for one in signals.series
    }


def events(text: str) -> list[tuple[int, str]]:
    found = LogIngestor().ingest(text.encode()).select("log_event", kind=SeriesKind.TEXT)
    return [(int(s), v) for one in found for s, v in zip(one.steps, one.values, strict=True)]


class TestTrainers:
    def test_megatron(self) -> None:
        line = (
            " iteration     {}/  159576 | consumed samples: 260912 | elapsed time per iteration "
            "(ms): 18706.1 | learning rate: 7.4E-05 | global batch size: 64 | lm loss: {} | "
            "loss scale: 2048.0 | grad norm: 98258.265 | number of skipped iterations:   0 | "
            "number of nan iterations:   {} |"
        )
        found = read("\n".join([
            line.format(7000, "6.444662E+00", 0), line.format(7001, "nan", 1),
            " validation loss at iteration 7001 | lm loss value: 3.2E+00 | lm loss PPL: 2.4E+01 |",
        ]))  # fmt: skip
        assert found["loss"][0] == [7000, 7001]
        assert found["loss"][1][0] == 6.444662
        assert math.isnan(found["loss"][1][1])
        assert found["step_time"][1] == pytest.approx([18.7061, 18.7061])
        assert found["lr"] == ([7000, 7001], [7.4e-05] * 2)
        assert found["loss_scale"][1] == [2048.0] * 2
        assert found["grad_norm"][1] == [98258.265] * 2
        assert found["skipped_step"][1] == [0.0, 0.0]
        assert found["nan_step"][1] == [0.0, 1.0]
        assert found["val_loss"] == ([7001], [3.2])
        assert found["val_perplexity"] == ([7001], [24.0])

    def test_megatron_timers_and_memory(self) -> None:
        found = read(
            " iteration 3/ 9 | lm loss: 2.5 |\n"
            "time (ms) | forward-compute: 29733.63 | optimizer: 58.73\n"
            "[Rank 0] (after 3 iterations) memory (MB) | allocated: 16.5 | max allocated: 32.0 | "
            "reserved: 64.0 | max reserved: 64.0\n"
        )
        assert found["timer_ms/forward-compute"] == ([3], [29733.63])
        assert found["timer_ms/optimizer"] == ([3], [58.73])
        assert found["memory_allocated [replica 0]"] == ([3], [16.5 * 2**20])
        assert found["memory_reserved [replica 0]"] == ([3], [64.0 * 2**20])

    def test_torchtitan_with_colours_and_thousands(self) -> None:
        line = (
            "[rank{}]:[titan] 2025-01-01 00:00:0{},123 - root - INFO - \x1b[31mstep: {}  "
            "\x1b[32mloss:  3.24405  \x1b[38;2;180;60;0mgrad_norm:  0.8319  "
            "\x1b[34mmemory:  9.50GiB(64.99%)  tps: 7,282  mfu: 0.17%\x1b[39m"
        )
        text = "\n".join(line.format(r, s - 10, s) for s in (14, 15) for r in (0, 1))
        found = read(text)
        assert found["loss [replica 1]"] == ([14, 15], [3.24405] * 2)
        assert found["tokens_per_second [replica 0]"] == ([14, 15], [7282.0] * 2)
        assert found["memory_reserved [replica 0]"][1] == [9.5 * 2**30] * 2
        times = LogIngestor().ingest(text.encode()).select("loss")[0].timestamps
        assert times is not None
        assert times.tolist() == [1735689604.123, 1735689605.123]

    def test_nanogpt(self) -> None:
        found = read(
            "step 0: train loss 10.9, val loss 10.8\n"
            "iter 0: loss 10.9886, time 66717.21ms, mfu -100.00%\n"
            "iter 10: loss 3.6714, time 6717.21ms, mfu 2.22%\n"
        )
        assert found["loss"] == ([0, 10], [10.9886, 3.6714])
        assert found["train:loss"] == ([0], [10.9])
        assert found["val_loss"] == ([0], [10.8])
        assert found["step_time"][1] == pytest.approx([66.71721, 6.71721])

    def test_modded_nanogpt(self) -> None:
        found = read(
            "step:0/1695 val_loss:10.8258 train_time:0ms step_avg:0.04ms\n"
            "step:1/1695 train_time:155ms step_avg:155.10ms\n"
        )
        assert found["val_loss"] == ([0], [10.8258])
        assert found["train_time"] == ([0, 1], [0.0, 155.0])

    def test_deepspeed(self) -> None:
        found = read(
            "[2024-01-01 10:00:00,000] [INFO] [logging.py:60:log_dist] [Rank 0] step=10, "
            "skipped=4, lr=[0.001, 0.002], mom=[[0.9, 0.99]]\n"
            "[INFO] [deepspeed] Overflow detected. Skipping step. Attempted loss scale: 8192.0, "
            "reducing to 4096.0\n"
        )
        assert found["lr [replica 0]"] == ([10], [0.001])
        assert found["skipped_steps_total [replica 0]"] == ([10], [4.0])
        assert found["loss_scale"] == ([10], [4096.0])
        assert found["skipped_step"] == ([10], [1.0])

    def test_dicts_as_printed(self) -> None:
        found = read(
            "{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 9.77e-06, 'epoch': 0.53}\n"
            "{'loss': '1.5', 'grad_norm': 'inf', 'learning_rate': '9.7e-06', 'epoch': '0.6'}\n"
            "{'eval_loss': 1.0, 'eval_runtime': 3.1, 'epoch': 0.6}\n"
        )
        assert found["loss"] == ([0, 1], [0.0, 1.5])
        assert math.isnan(found["grad_norm"][1][0])
        assert found["grad_norm"][1][1] == math.inf
        assert found["eval_loss"] == ([2], [1.0])

    def test_json_within_a_line(self) -> None:
        found = read(
            '2024-01-01 10:00:00 | INFO | train_inner | {"epoch": 1, "loss": "14.6", '
            '"num_updates": "100", "lr": "1e-05", "gnorm": "4.6", "wall": "33"}\n'
        )
        assert found["loss"] == ([100], [14.6])
        assert found["grad_norm"] == ([100], [4.6])

    def test_mlperf(self) -> None:
        line = (
            ':::MLLOG {{"namespace": "", "time_ms": 1615000000000, "event_type": "POINT_IN_TIME", '
            '"key": "{}", "value": {}, "metadata": {{"file": "x.py", "lineno": 12, '
            '"epoch_num": {}}}}}'
        )
        found = read("\n".join([
            line.format("eval_accuracy", 0.5, 1), line.format("seed", "null", 1),
            line.format("train_loss", "NaN", 2), line.format("eval_accuracy", 0.75, 2),
        ]))  # fmt: skip
        assert found["eval_accuracy"] == ([1, 2], [0.5, 0.75])
        assert found["train:loss"][0] == [2]
        assert math.isnan(found["train:loss"][1][0])

    def test_keras(self) -> None:
        found = read(
            "Epoch 1/2\n1875/1875 [======] - 3s 1ms/step - loss: 0.2 - val_loss: 0.25\n"
            "Epoch 2/2\n1875/1875 [======] - 3s 1ms/step - loss: 0.1 - val_loss: 0.2\n"
        )
        assert found["loss"] == ([1, 2], [0.2, 0.1])
        assert found["val_loss"] == ([1, 2], [0.25, 0.2])

    def test_brackets(self) -> None:
        found = read(
            "Epoch [1/5], Step [100/200], Loss: 2.3\nEpoch [1/5], Step [200/200], Loss: 1.3\n"
            "Epoch [2/5], Step [100/200], Loss: 1.1\n"
        )
        assert found["loss"] == ([100, 200, 300], [2.3, 1.3, 1.1])

    def test_a_progress_bar_that_writes_over_itself(self) -> None:
        bar = "Epoch 1: {}%|##| {}/938 [00:10<00:00, 88.4it/s, loss={}, v_num=0]"
        found = read("\r".join([bar.format(10, 93, 0.5), bar.format(50, 469, "nan")]) + "\n")
        assert found["loss"][0] == [93, 469]
        assert math.isnan(found["loss"][1][1])


class TestLines:
    @pytest.mark.parametrize(
        "line",
        [
            "step 5 loss 0.25", "step=5 loss=0.25", "step: 5, loss: 0.25", "Step 5 | Loss 0.25",
            "[5] step:5 train_time:3ms loss:0.25", "global_step = 5, loss = 2.5e-1",
            "INFO:root:step=5;loss=0.25", '{"a": "b", "step": 5, "loss": 0.25} done',
        ],
    )  # fmt: skip
    def test_ways_to_write_it(self, line: str) -> None:
        assert read(line)["loss"] == ([5], [0.25])

    @pytest.mark.parametrize(
        "line",
        [
            "loss = 0.5", "    lr = 0.1", "def f(step=1, loss=0.5):", "python -m x --lr 0.1",
            "version 1.2.3", "2024-01-01 10:00:00 starting", "batch size: 32", "import torch",
            "if step == 10: loss = 0.0", "weight_decay: 0.1", "see step 3 of the guide",
        ],
    )  # fmt: skip
    def test_code_prose_and_configuration_are_no_measurements(self, line: str) -> None:
        with pytest.raises(UnsupportedFormatError, match="<bytes>: text without"):
            LogIngestor().ingest(line.encode())

    def test_names_of_two_words(self) -> None:
        found = read("step 3: train loss: 1.5, val acc: 0.5, my metric: 7\n")
        assert found["train:loss"] == ([3], [1.5])
        assert found["val_accuracy"] == ([3], [0.5])

    def test_lines_that_all_differ_in_words(self) -> None:
        text = "".join(f"run w{'x' * (i % 900)}y step={i} loss={i}\n" for i in range(2000))
        assert read(text)["loss"] == (list(range(2000)), list(range(2000)))

    def test_ranks_that_write_between_each_other(self) -> None:
        text = "".join(f"[rank{r}]: step={s} loss={s + r / 10}\n" for s in range(3) for r in (1, 0))
        assert read(text) == {
            "loss [replica 1]": ([0, 1, 2], [0.1, 1.1, 2.1]),
            "loss [replica 0]": ([0, 1, 2], [0.0, 1.0, 2.0]),
        }

    def test_the_same_line_from_every_rank_is_read_once(self) -> None:
        signals = LogIngestor().ingest(b"step=1 loss=2\n" * 8 + b"step=2 loss=1\n" * 8)
        assert signals.series[0].values.tolist() == [2.0, 1.0]
        assert signals.metadata["repeated_lines"] == 14

    def test_a_restart(self) -> None:
        text = "".join(f"step={s} loss={s}\n" for s in (1, 2, 3, 2, 3, 4, 5, 6, 7, 8))
        assert list(read(text)) == ["loss", "loss (restart 1)"]

    def test_gzip_and_not_utf_8(self) -> None:
        data = gzip.compress(b"caf\xe9\nstep 1: loss 0.5\n")
        assert open_source(data).series[0].values.tolist() == [0.5]

    @given(
        st.lists(
            st.tuples(
                st.floats(allow_nan=True), st.one_of(st.floats(), st.integers(0, 10**9)),
                st.integers(0, 3),
            ),
            min_size=1, max_size=40,
        )
    )  # fmt: skip
    def test_every_number_is_read_whatever_shape_the_line_before_had(
        self, rows: list[tuple[float, float, int]]
    ) -> None:
        shapes = (
            "step {} loss {!r} lr {!r}", "step={}, loss={!r}, lr={!r}",
            "step: {} | loss: {!r} | lr: {!r} |", "{{'step': {}, 'loss': {!r}, 'lr': {!r}}}",
        )  # fmt: skip
        text = "\n".join(shapes[k].format(i, a, b) for i, (a, b, k) in enumerate(rows))
        found = read(text)
        assert found["loss"][0] == list(range(len(rows)))
        assert list(map(repr, found["loss"][1])) == [repr(a) for a, _, _ in rows]
        assert list(map(repr, found["lr"][1])) == [repr(float(b)) for _, b, _ in rows]

    @given(st.text(max_size=200))
    def test_no_text_raises_anything_but_our_error(self, text: str) -> None:
        try:
            found = LogIngestor().ingest(text.encode("utf-8", "surrogatepass"))
        except UnsupportedFormatError:
            return
        assert isinstance(found, SignalSet)


class TestMessages:
    @pytest.mark.parametrize(
        "line",
        [
            "INFO starting", "nano finance information", "infra ok", "Nancy inferred inflation",
            "val = float('inf')", "x = float('nan')", "if torch.isnan(loss):", "mask = -inf",
            "check_for_nan_in_loss_and_grad .......... True", "loss: 0.5 infos: 3",
        ],
    )  # fmt: skip
    def test_words_that_are_no_faults(self, line: str) -> None:
        assert not is_event(line)

    @pytest.mark.parametrize(
        "line",
        [
            "loss is NaN, stopping", "WARNING: NaN detected in gradients", "found inf in grad",
            "Non-finite loss encountered", "Gradient overflow.  Skipping step",
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "RuntimeError: CUDA error: device-side assert triggered",
            "NCCL WARN Call to connect failed", "Segmentation fault (core dumped)",
            "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=BROADCAST)",
            "slurmstepd: error: *** JOB 1 ON r6 CANCELLED DUE TO TIME LIMIT ***",
        ],
    )  # fmt: skip
    def test_faults(self, line: str) -> None:
        assert is_event(line)

    def test_they_stand_at_the_last_step(self) -> None:
        text = "step 4: loss 2\nstep 5: loss 3\nloss is NaN, stopping\n"
        assert events(text) == [(5, "loss is NaN, stopping")]

    def test_a_traceback_is_what_it_raised(self) -> None:
        text = (
            "step 5: loss 3\nTraceback (most recent call last):\n  File \"x.py\", line 3, in f\n"
            "    loss.backward()\nRuntimeError: CUDA out of memory\nbye\n"
        )  # fmt: skip
        assert events(text) == [(5, "RuntimeError: CUDA out of memory (in f at x.py:3)")]

    def test_tracebacks_of_several_ranks_between_each_other(self) -> None:
        text = (
            "step 5: loss 3\n[rank1]: Traceback (most recent call last):\n"
            "[rank2]: Traceback (most recent call last):\n"
            '[rank1]:   File "/home/me/train.py", line 3, in f\n'
            '[rank1]:   File "/env/lib/python3.11/site-packages/torch/x.py", line 9, in g\n'
            '[rank2]:   File "/home/me/data.py", line 7, in <module>\n'
            "step 6: loss 2\n"
            "[rank2]: KeyboardInterrupt\n[rank1]: ValueError: Loss is NaN\n"
        )
        signals = LogIngestor().ingest(text.encode())
        found = signals.select("log_event", kind=SeriesKind.TEXT)
        assert [(one.key.replica_id, one.values.tolist()) for one in found] == [
            (1, ["ValueError: Loss is NaN (in f at /home/me/train.py:3)"]),
            (2, ["KeyboardInterrupt (in <module> at /home/me/data.py:7)"]),
        ]
        assert signals.select("loss")[0].values.tolist() == [3.0, 2.0]
        assert signals.metadata["log_events"] == (
            {"line": 8, "kind": "exception", "step": 6,
             "text": "KeyboardInterrupt (in <module> at /home/me/data.py:7)"},
            {"line": 9, "kind": "non_finite", "step": 6,
             "text": "ValueError: Loss is NaN (in f at /home/me/train.py:3)"},
        )  # fmt: skip

    def test_a_traceback_without_an_end_does_not_take_the_log_with_it(self) -> None:
        text = "Traceback (most recent call last):\n" + "".join(
            f" iteration {i}/ 10 | lm loss: {i}.5 |\n" for i in range(9)
        )
        assert read(text)["loss"] == (list(range(9)), [i + 0.5 for i in range(9)])

    @pytest.mark.parametrize(
        ("line", "kind"),
        [
            ("torch.OutOfMemoryError: CUDA out of memory. Tried to do it", "out_of_memory"),
            ("slurmstepd: error: Detected 1 oom-kill event(s) in step 1.0", "out_of_memory"),
            ("[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)",
             "collective_timeout"),
            ("torch.distributed.DistBackendError: NCCL error in: x.cpp:1", "nccl_error"),
            ("RuntimeError: CUDA error: an illegal memory access was encountered", "device_error"),
            ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", "device_error"),
            ("FloatingPointError: Loss is nan, stopping training", "non_finite"),
            ("RuntimeError: Function 'MulBackward0' returned nan values in its 0th output.",
             "non_finite"),
            ("Gradient overflow.  Skipping step, loss scaler 0 reducing", "skipped_step"),
            ("slurmstepd: error: *** JOB 1 CANCELLED DUE TO TIME LIMIT ***", "ended_by_scheduler"),
            ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "killed"),
            ("KeyError: 'input_ids'", "exception"),
        ],
    )  # fmt: skip
    def test_kinds(self, line: str, kind: str) -> None:
        assert is_event(line)
        assert LogIngestor().ingest(line.encode()).metadata["log_event_kinds"] == {kind: 1}

    def test_what_an_allocator_says_is_measured(self) -> None:
        text = (
            "step 5: loss 3\n"
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a "
            "total capacity of 79.00 GiB of which 1.21 GiB is free. Including non-PyTorch memory, "
            "this process has 77.93 GiB memory in use. Of the allocated memory 70.50 GiB is "
            "allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but unallocated.\n"
        )
        found = read(text)
        assert found["allocation_failed"] == ([5], [2 * 2.0**30])
        assert found["memory_total"] == ([5], [79 * 2.0**30])
        assert found["memory_allocated"] == ([5], [70.5 * 2.0**30])
        assert found["memory_reserved"] == ([5], [71 * 2.0**30])

    def test_what_a_watchdog_says_is_measured_at_its_rank(self) -> None:
        found = read(
            "step 5: loss 3\n"
            "[rank3]:[E1124 x.cpp:629] [Rank 3] Watchdog caught collective operation "
            "timeout: WorkNCCL(SeqNum=17, OpType=BROADCAST, NumelIn=1, NumelOut=1, "
            "Timeout(ms)=600000) ran for 600123 milliseconds before timing out.\n"
            "[rank3]:[E1124] [PG ID 0 PG GUID 0(default_pg) Rank 3] Exception (an error or a "
            "timeout) detected by watchdog at work: 17, last enqueued NCCL work: 18, "
            "last completed NCCL work: 16.\n"
        )
        assert found["collective_timeout [replica 3]"] == ([5], [17.0])
        assert found["collective_seq [replica 3]"] == ([5], [18.0])

    def test_the_messages_listed_are_the_first_and_the_last(self) -> None:
        text = "".join(f"step {i}: loss 2\nloss is NaN in part {i}\n" for i in range(300))
        listed = LogIngestor().ingest(text.encode()).metadata["log_events"]
        steps = [event["step"] for event in listed]
        assert steps == [*range(50), *range(250, 300)]
        assert [event["line"] for event in listed] == [2 * step + 2 for step in steps]

    def test_a_log_of_messages_alone(self) -> None:
        assert events("hello\nCUDA out of memory\n") == [(0, "CUDA out of memory")]

    def test_a_name_with_nan_in_it_is_a_field(self) -> None:
        text = " iteration 1/ 10 | lm loss: 2.0 | number of nan iterations: 0 |\n"
        assert events(text) == []
