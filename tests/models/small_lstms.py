"""Small ``sentence_lstm`` models, built as fairseq builds them but for the task."""

from types import SimpleNamespace

import torch
from omegaconf import OmegaConf

from fairseq_bert_kd.models.sentence_lstm import SentenceLstm, SentenceLstmConfig
from tests.models.small_encoders import HEAD, NAMES, sentence_task

SIZES = {"embedding_dim": 6, "hidden_size": 5, "vector_dim": 4}


def lstm_task(folder, texts=1, **changes):
    """The part of a sentence task that the model looks at."""
    task = sentence_task(folder)
    task.spec = SimpleNamespace(texts=texts)
    for name, value in changes.items():
        setattr(task, name, value)
    return task


def build_lstm(task, seed=1, head=False, **options):
    """A model in evaluation mode; sizes that are not given are small."""
    torch.manual_seed(seed)
    given = {**({} if options.get("encoder_init") else SIZES), **options}
    model = SentenceLstm.build_model(OmegaConf.structured(SentenceLstmConfig(**given)), task)
    if head:
        model.register_classification_head(HEAD, num_classes=len(NAMES))
    return model.eval()


def save_lstm(model, path):
    """A checkpoint as fairseq writes one, with what ours is read for."""
    settings = {"_name": "sentence_lstm", "encoder_spec": model.spec()}
    torch.save({"model": model.state_dict(), "cfg": {"model": settings}, "args": None}, path)
    return path
