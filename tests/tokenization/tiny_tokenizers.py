"""Folders with tiny tokenizers that ``AutoTokenizer.from_pretrained`` loads, trained in a moment, always the same, no network."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

KINDS = ("bert_uncased", "bert_cased", "roberta", "xlmr")

TEXT = """\
Two young men are standing near a stove, and they don't look at it.
A little girl climbs into a wooden playhouse; she isn't afraid.
The state-of-the-art machine makes low-energy light for the houses.
Three people sit at a table in a restaurant and eat together (at noon).
A man in a blue shirt is standing on a ladder cleaning a window.
Zwei junge Männer stehen in der Küche, während ein Mädchen hinaufklettert.
Ein Mann in einem blauen Hemd steht auf einer Leiter und putzt ein Fenster.
Drei Personen sitzen an einem Tisch im Restaurant und essen zusammen.
Where is the boy? He said: "I am standing on the road!" He stood up.
1 2 3 4 5 6 7 8 9 0, 10 20 300 and 1,000 people walked to the café.
abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ ÄÖÜäöüß
""".splitlines()

BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def build_tokenizer(kind: str, folder: Path) -> None:
    """Write a tokenizer of about 300 pieces.

    Args:
        kind: "bert_uncased", "bert_cased" (WordPiece), "roberta" (byte-level BPE) or "xlmr" (Unigram).
        folder: created if it is missing; gets ``tokenizer.json`` and ``tokenizer_config.json``.

    Raises:
        ValueError: an unknown kind.
    """
    builders: dict[str, Callable[[], tuple[Tokenizer, dict]]] = {
        "bert_uncased": lambda: _bert(lowercase=True),
        "bert_cased": lambda: _bert(lowercase=False),
        "roberta": _roberta,
        "xlmr": _xlmr,
    }
    if kind not in builders:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, but is `{kind}`")
    tokenizer, config = builders[kind]()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if config["tokenizer_class"] == "BertTokenizer":  # as in the published models
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in vocab), encoding="utf-8")


def _pieces(pre_tokenizer: pre_tokenizers.PreTokenizer, lowercase: bool) -> list[str]:
    """Letters and frequent strings. The WordPiece and Unigram trainers give another vocabulary each time."""
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=180, show_progress=False))
    return sorted(tokenizer.get_vocab(), key=lambda piece: tokenizer.token_to_id(piece) or 0)


def _bert(lowercase: bool) -> tuple[Tokenizer, dict]:
    pieces = _pieces(pre_tokenizers.BertPreTokenizer(), lowercase)
    symbols = [*BERT_SPECIALS, *pieces, *(f"##{piece}" for piece in pieces if piece.isalnum())]
    vocab = {symbol: place for place, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(BERT_SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    config = {f"{name}_token": token for name, token in zip(names, BERT_SPECIALS, strict=True)}
    return tokenizer, config | {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase}


def _roberta() -> tuple[Tokenizer, dict]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=ROBERTA_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer, _roberta_config("RobertaTokenizer") | {"add_prefix_space": False}


def _xlmr() -> tuple[Tokenizer, dict]:
    # nearly equal scores: the fewest pieces win, then the more frequent ones
    scored = [
        (piece, -10 - rank / 100) for rank, piece in enumerate(_pieces(pre_tokenizers.Metaspace(), False))
    ]
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in ROBERTA_SPECIALS] + scored, unk_id=3))
    # no normalizer: transformers 5 drops all but XLM-R's own from the file, transformers 4 keeps any
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(ROBERTA_SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer, _roberta_config("XLMRobertaTokenizer")


def _roberta_config(tokenizer_class: str) -> dict:
    names = {
        "bos": "<s>",
        "cls": "<s>",
        "pad": "<pad>",
        "eos": "</s>",
        "sep": "</s>",
        "unk": "<unk>",
        "mask": "<mask>",
    }
    return {f"{name}_token": token for name, token in names.items()} | {"tokenizer_class": tokenizer_class}
