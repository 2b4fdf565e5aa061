"""The fields that are read from a line of ``sglang.bench_serving``, with units."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

# Every release from 0.5.10 writes these. A line without one of them is rejected.
NEEDED = {
    "dataset_name": "the source of the prompts",
    "backend": "the name of the client's protocol",
    "random_input_len": "the longest prompt, in tokens",
    "random_output_len": "the longest answer, in tokens",
    "random_range_ratio": "the shortest length, as a fraction of the longest",
    "max_concurrency": "the maximum number of open requests, or null",
    "request_rate": "requests a second",
    "completed": "the number of requests that were answered",
    "duration": "seconds from the first request to the last answer",
    "total_input_tokens": "the sum of input_lens, in tokens",
    "total_output_tokens": "the sum of output_lens, in tokens",
    "total_throughput": "tokens a second, input and output",
    "output_throughput": "tokens a second",
    "median_tpot_ms": "milliseconds a token after the first",
    "median_ttft_ms": "the median of ttfts, in milliseconds",
    "p99_ttft_ms": "the 99th percentile of ttfts, in milliseconds",
}
# Per request, in order. --output-details writes all of these; otherwise none.
DETAILS = {
    "input_lens": "tokens",
    "output_lens": "tokens; 0 if the request failed",
    "ttfts": "seconds until the first token; 0 if there was none",
    "errors": "error text, empty if the request was answered",
}
# Read if present. ``itls`` is large; `bench.py run` removes it from stored outputs.
OPTIONAL = {
    "tag": "the description of the run, as JSON in a string",
    "server_info": "the server's settings",
    "itls": "seconds between a request's tokens, for every request",
    "mean_ttft_ms": "the mean of ttfts, in milliseconds",
    "request_throughput": "requests a second",
    "input_throughput": "tokens a second",
}
FIELDS = {**NEEDED, **DETAILS, **OPTIONAL}


class Line(msgspec.Struct):
    """See the tables above."""

    dataset_name: str
    backend: str
    random_input_len: int
    random_output_len: int
    random_range_ratio: float
    max_concurrency: int | None
    request_rate: float | Literal["trace"]
    completed: int
    duration: float
    total_input_tokens: int
    total_output_tokens: int
    total_throughput: float
    output_throughput: float
    median_tpot_ms: float
    median_ttft_ms: float
    p99_ttft_ms: float
    input_lens: list[int] | None = None
    output_lens: list[int] | None = None
    ttfts: list[float] | None = None
    errors: list[str | None] | None = None
    tag: str | None = None
    server_info: dict[str, Any] | None = None
    itls: list[list[float]] | None = None
    mean_ttft_ms: float | None = None
    request_throughput: float | None = None
    input_throughput: float | None = None

    @property
    def details(self) -> dict[str, list[Any]]:
        """The details that are present, by name."""
        details = {name: getattr(self, name) for name in (*DETAILS, "itls")}
        return {name: one for name, one in details.items() if one is not None}
