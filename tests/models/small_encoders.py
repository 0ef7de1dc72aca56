"""Models of ``hf_encoder`` over two short sentences, built as fairseq builds them but for the task."""

from types import SimpleNamespace

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from fairseq_bert_kd.functional.text_smoothing import sparse_text
from fairseq_bert_kd.models.hf_encoder import HfEncoder, HfEncoderConfig
from fairseq_bert_kd.tokenization.dictionary import map_dictionary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

FIRST = ["two men stand", "a house"]
SECOND = ["a little girl", "two young men are standing near a stove"]
HEAD = "sentence_classification_head"
NAMES = ("no", "yes", "maybe")
FORM = {"classification_pooling": "pooler", "classifier": "dropout", "classification_dropout": 0.1}


def sentence_task(folder, label_names=NAMES, num_classes=3):
    """The part of a sentence task that models and fairseq's criterion look at."""
    tokenizer = HfTokenizer(str(folder))
    dictionary = Dictionary()
    for line in [*FIRST, *SECOND]:
        for piece in tokenizer.encode(line):
            dictionary.add_symbol(piece)
    vocabulary = SimpleNamespace(
        token_to_encoder=map_dictionary(tokenizer, dictionary, "source"),
        text_format=tokenizer.text_format(),
        digests={"tokenizer": tokenizer.digest()},
        encoder_size=tokenizer.vocab_size,
    )
    return SimpleNamespace(
        tokenizer=tokenizer, source_dictionary=dictionary, dictionary=dictionary, vocabulary=vocabulary,
        label_names=label_names, num_classes=num_classes, label_dictionary=Dictionary(),
    )  # fmt: skip


def build(task, head=True, **options):
    """A model in evaluation mode, with a head for the task's classes."""
    model = HfEncoder.build_model(OmegaConf.structured(HfEncoderConfig(**options)), task)
    if head:
        model.register_classification_head(HEAD, num_classes=task.num_classes)
    return model.eval()


def sizes(layers=2, hidden=24, heads=3, ffn=32):
    """Options of a small encoder with random weights."""
    return {
        "encoder_layers": layers,
        "encoder_hidden": hidden,
        "encoder_heads": heads,
        "encoder_ffn": ffn,
    }


def save(model, path, **options):
    """A checkpoint with what ``--encoder-init`` and ``export-student`` read."""
    settings = {"_name": "hf_encoder", "encoder_spec": model.spec(), **FORM, **options}
    torch.save({"model": model.state_dict(), "cfg": {"model": settings}, "args": None}, path)
    return path


def batch_of(task, *texts):
    """``net_input`` of one or two lists of lines."""
    dictionary, encoded = task.source_dictionary, []
    for lines in texts:
        rows = [
            [dictionary.index(piece) for piece in task.tokenizer.encode(line)] + [dictionary.eos()]
            for line in lines
        ]
        lengths = torch.tensor([len(row) for row in rows])
        padded = [row + [dictionary.pad()] * (int(lengths.max()) - len(row)) for row in rows]
        encoded.append((torch.tensor(padded), lengths))
    tokens, lengths = zip(*encoded, strict=True)
    return {"texts": tokens, "lengths": lengths}


def whole_text(task, batch):
    """A batch's only text in the place of whose tokens stand random distributions over the dictionary; these, and its ids."""
    [tokens] = batch["texts"]
    torch.manual_seed(2)
    logits = torch.randn(*tokens.shape, len(task.source_dictionary))
    best, ids = logits.topk(logits.size(-1))
    chosen = tokens != task.source_dictionary.pad()
    return (
        sparse_text(ids, best, logits.logsumexp(dim=-1), chosen, weight=1.0),
        logits.softmax(dim=-1),
        tokens,
    )
