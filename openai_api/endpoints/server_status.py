"""``GET /v1/server``: the server at a glance, for a page that shows it.

Owns what is shown to whom. Reads plain values and measures nothing; the engine thread is asked for
its requests only while there are any. Never tells content. Runs on the event loop.
"""

import re
import time

from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from engine.engine_info import EngineStats, ModelInfo
from engine.errors import EngineNotReadyError
from engine.request_status import RequestStatus
from gemma3 import __version__
from openai_api.answer.models import json_response
from openai_api.answer.server_models import (
    BatchTotals,
    BlockPoolAnswer,
    KVCacheAnswer,
    LatencyAnswer,
    MachineAnswer,
    RunningRequest,
    ServedModelAnswer,
    ServerAnswer,
    ServerTotals,
)
from openai_api.app_state import AppState, app_state_of, caller_of
from openai_api.machine import this_machine
from openai_api.metrics import Collected, collected

MAX_ROWS = 100
_REST_OF_ID = re.compile(r"(?<=[0-9a-f]{8})[0-9a-f]+")


async def server_status(request: Request) -> Response:
    """200, also while the model loads. Where there are several API keys, requests of others are counted only."""
    app_state = app_state_of(request)
    statuses = await app_state.engine.request_statuses()
    name, is_alone = caller_of(request).name, len(app_state.settings.api_keys) < 2
    own = [status for status in statuses if is_alone or status.caller_name == name][:MAX_ROWS]
    return json_response(_answer(app_state, own, num_others=len(statuses) - len(own)))


def _answer(app_state: AppState, own: list[RequestStatus], *, num_others: int) -> ServerAnswer:
    stats, info = app_state.engine.stats(), _info(app_state)
    machine, metrics = this_machine(), app_state.metrics
    return ServerAnswer(
        object="server",
        status=app_state.engine.status.value,
        version=__version__,
        uptime_s=time.monotonic() - app_state.started_s,
        model=None if info is None else _model(info, list(app_state.model_names)),
        machine=MachineAnswer(
            processor=machine.processor,
            architecture=machine.architecture,
            processors=machine.num_processors,
            memory_bytes=machine.memory_bytes,
        ),
        kv_cache=None if info is None else _kv_cache(info, stats),
        running=stats.num_running,
        waiting=stats.num_waiting,
        totals=_totals(stats),
        time_to_first_token=_latency(collected(metrics.time_to_first_token)),
        inter_token_latency=_latency(collected(metrics.inter_token_latency)),
        batches=_batches(app_state),
        requests=[_row(status, info) for status in own],
        other_requests=num_others,
    )


def _info(app_state: AppState) -> ModelInfo | None:
    try:
        return app_state.engine.info
    except EngineNotReadyError:
        return None


def _model(info: ModelInfo, names: list[str]) -> ServedModelAnswer:
    return ServedModelAnswer(
        names=names,
        quantization=info.quantization,
        dtype=info.dtype,
        device=info.device,
        instruction_set=info.isa or None,
        threads=info.num_threads or None,
        step_bytes=info.step_bytes or None,
        max_model_len=info.max_model_len,
        is_instruction_tuned=info.is_instruction_tuned,
        system_fingerprint=info.system_fingerprint,
    )


def _kv_cache(info: ModelInfo, stats: EngineStats) -> KVCacheAnswer | None:
    layout, there, used = info.kv_layout, info.kv_blocks, stats.num_used_blocks
    if layout is None:
        return None
    return KVCacheAnswer(
        usage=stats.kv_cache_usage,
        block_tokens=layout.block_size,
        global_layers=BlockPoolAnswer(
            used_blocks=used.num_global, blocks=there.num_global, block_bytes=layout.global_block_bytes
        ),
        sliding_layers=BlockPoolAnswer(
            used_blocks=used.num_sliding, blocks=there.num_sliding, block_bytes=layout.sliding_block_bytes
        ),
    )


def _totals(stats: EngineStats) -> ServerTotals:
    return ServerTotals(
        steps=sum(stats.step_sizes.num_steps),
        computed_tokens=stats.step_sizes.num_tokens,
        output_tokens=stats.num_output_tokens,
        prefix_cache_queries=stats.prefix_cache_queries,
        prefix_cache_hits=stats.prefix_cache_hits,
        draft_tokens=stats.num_draft_tokens,
        accepted_draft_tokens=stats.num_accepted_draft_tokens,
        preemptions=stats.num_preemptions,
    )


def _batches(app_state: AppState) -> BatchTotals | None:
    if app_state.settings.data_dir is None:
        return None
    metrics = app_state.metrics
    return BatchTotals(in_progress=_value(metrics.batches_in_progress), rows=_value(metrics.batch_rows))


def _value(metric: Collector) -> int:
    """As it would be scraped now, over all labels."""
    samples = [sample for family in metric.collect() for sample in family.samples]
    return int(sum(sample.value for sample in samples if not sample.name.endswith("_created")))


def _latency(seen: Collected) -> LatencyAnswer:
    return LatencyAnswer(count=seen.count, sum_s=seen.sum_s)


def _row(status: RequestStatus, info: ModelInfo | None) -> RunningRequest:
    """An id lets whoever knows it ask for the answer, where answers are kept: it is cut."""
    room = 0 if info is None else status.num_sequences * max(0, info.max_model_len - status.num_prompt_tokens)
    most = status.max_output_tokens
    return RunningRequest(
        id=_REST_OF_ID.sub("", status.request_id),
        phase=status.phase.value,
        age_s=status.age_s,
        choices=status.num_sequences,
        prompt_tokens=status.num_prompt_tokens,
        cached_tokens=status.num_cached_tokens,
        computed_tokens=status.num_computed_tokens,
        output_tokens=status.num_output_tokens,
        max_output_tokens=room if most is None else min(most, room),
        forced_tokens=status.num_forced_tokens,
        accepted_draft_tokens=status.num_accepted_draft_tokens,
        is_constrained=status.is_constrained,
        is_scoring=status.is_scoring,
    )
