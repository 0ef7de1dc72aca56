"""The schemas that commands for any store know; a new schema is added here."""

from fairseq_bert_kd.storage.schema import StoreInfo
from fairseq_bert_kd.storage.smoothing_store import SentenceSmoothingInfo, SourceSmoothingInfo
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.vector_store import VectorInfo

SCHEMAS: tuple[type[StoreInfo], ...] = (
    TopKInfo,
    VectorInfo,
    SourceSmoothingInfo,
    SentenceSmoothingInfo,
)
