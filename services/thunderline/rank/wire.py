"""Protos of the Attach stream to the engine's values and back. Imports no mlx."""

from thunderline.cluster import RankId
from thunderline.rank.values import Insert, News, Report
from thunderline.v1 import cluster_pb2, rank_pb2

FINISH = {"stop": cluster_pb2.FINISH_REASON_STOP, "length": cluster_pb2.FINISH_REASON_LENGTH}


def insert(wire: rank_pb2.Insert) -> Insert:
    from thunderline.rank.sampler import Params

    sampling = wire.sampling
    params = Params(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=sampling.seed,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=dict(sampling.logit_bias),
    )
    return Insert(
        key=wire.key,
        request_id=wire.request_id,
        prompt_token_ids=tuple(wire.prompt_token_ids),
        resume_token_ids=tuple(wire.resume_token_ids),
        params=params,
        max_tokens=wire.max_tokens,
        logprobs=wire.logprobs,
        top_logprob_count=wire.top_logprob_count,
        ignore_eos=wire.ignore_eos,
        resume=wire.resume,
    )


def step_report(report: Report) -> rank_pb2.AttachRequest:
    step = rank_pb2.StepReport(
        step=report.step,
        sequences=[_news(one) for one in report.news],
        prefill_tokens=report.prefill_tokens,
        duration_us=int(report.duration_s * 1e6),
        running_count=report.running_count,
        waiting_count=report.waiting_count,
        kv_tokens=report.kv_tokens,
        cache_tokens=report.cache_tokens,
        parked_count=report.parked_count,
    )
    return rank_pb2.AttachRequest(step=step)


def _news(news: News) -> rank_pb2.SequenceTokens:
    return rank_pb2.SequenceTokens(
        key=news.key,
        token_ids=news.token_ids,
        logprobs=[
            rank_pb2.SequenceLogprobs(logprob=one.chosen, top_token_ids=one.top_ids, top_logprobs=one.top_values)
            for one in news.logprobs
        ],
        finish_reason=FINISH.get(news.finish, cluster_pb2.FINISH_REASON_UNSPECIFIED),
        cached_tokens=news.cached_tokens,
    )


def rank_id(rank: RankId) -> cluster_pb2.RankId:
    return cluster_pb2.RankId(instance=rank.instance, epoch=rank.epoch, rank=rank.rank)
