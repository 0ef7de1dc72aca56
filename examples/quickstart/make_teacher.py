"""A small BERT to start from: a WordPiece vocabulary of the given text and random weights.

For the quickstart only, which has no pre-trained model at hand; with real text give a real one. It has
ModernBERT's layers (normalisation first, rotary positions), which learn from scratch in minutes what the
original layers take far longer for.

    python make_teacher.py --text train.de train.en --out teacher-init
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import ModernBertConfig, ModernBertForMaskedLM

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", nargs="+", required=True, help="text to take the vocabulary from")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocab-size", type=int, default=3000, help="WordPieces (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--dim", type=int, default=128, help="hidden size (default: %(default)s)")
    parser.add_argument("--heads", type=int, default=4, help="attention heads (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    tokenizer.train(args.text, vocab_size=args.vocab_size, special_tokens=SPECIALS, show_progress=False)
    tokenizer.post_processor = _pair_template(tokenizer)
    tokenizer.save(str(args.out / "tokenizer.json"))
    names = ("pad", "unk", "cls", "sep", "mask")
    settings = {f"{name}_token": token for name, token in zip(names, SPECIALS, strict=True)}
    settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": False}
    (args.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    tokenizer.save_model(str(args.out))

    torch.manual_seed(args.seed)
    pad, _, cls, sep, _ = (tokenizer.token_to_id(token) for token in SPECIALS)
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=args.dim,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        intermediate_size=2 * args.dim,  # gated: twice this many inner units
        max_position_embeddings=256,
        global_attn_every_n_layers=1,  # sentences are short: no sliding windows
        initializer_range=0.05,
        pad_token_id=pad,
        bos_token_id=cls,
        eos_token_id=sep,
        cls_token_id=cls,
        sep_token_id=sep,
    )
    ModernBertForMaskedLM(config).save_pretrained(args.out)


def _pair_template(tokenizer: BertWordPieceTokenizer):
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


if __name__ == "__main__":
    main()
