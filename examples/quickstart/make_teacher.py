"""A small BERT that has read text: a WordPiece vocabulary and masked language modelling from random weights.

For the quickstart only, which has no pre-trained model at hand; with real text give a real one. It has ModernBERT's
layers (normalisation first, rotary positions), which learn from scratch in minutes what the original layers take far
longer for.

    python make_teacher.py --vocabulary train.de train.en --read mono.en --out bert
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import ModernBertConfig, ModernBertForMaskedLM

from fairseq_bert_kd.text_lines import open_lines

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, _, CLS, SEP, MASK = range(len(SPECIALS))  # the tokenizer numbers them first
VOCABULARY, MASK_PROBABILITY, WARMUP, PEAK_LR, BATCH = 3000, 0.4, 100, 2e-3, 48


def make_tokenizer(texts: list[str], out: Path) -> BertWordPieceTokenizer:
    """A cased WordPiece tokenizer, also written to ``out`` as transformers reads it."""
    tokenizer = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    tokenizer.train(texts, vocab_size=VOCABULARY, special_tokens=SPECIALS, show_progress=False)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer.save_model(str(out))
    names = ("pad", "unk", "cls", "sep", "mask")
    settings = {f"{name}_token": token for name, token in zip(names, SPECIALS, strict=True)}
    settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": False}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return tokenizer


def make_model(vocab_size: int) -> ModernBertForMaskedLM:
    """Random weights: 3 layers of 128."""
    special = {"pad_token_id": PAD, "bos_token_id": CLS, "eos_token_id": SEP, "cls_token_id": CLS}
    config = ModernBertConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,  # gated: twice this many inner units
        max_position_embeddings=256,
        global_attn_every_n_layers=1,  # sentences are short: no sliding windows
        initializer_range=0.05,
        sep_token_id=SEP,
        **special,
    )
    return ModernBertForMaskedLM(config)


def with_copy(sentence: list[int]) -> list[int]:
    """A sentence behind half of its own words in a slightly other order: it learns to look into the first segment."""
    words = sentence[1:-1]
    places = torch.arange(len(words)) + 3 * torch.rand(len(words))
    kept = [words[place] for place in places.argsort().tolist() if torch.rand(()) < 0.5]
    return [CLS, *kept, SEP, *words, SEP]


def read_text(model: ModernBertForMaskedLM, sentences: list[list[int]], updates: int) -> None:
    """Train on the sentences with random masks, for ``updates`` batches of sentences of similar length."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    warmup = min(0.3, WARMUP / updates)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LR, total_steps=updates, pct_start=warmup, anneal_strategy="linear"
    )
    sentences = sorted(sentences, key=len)
    start, total = time.monotonic(), 0.0
    for update in range(1, updates + 1):
        first = int(torch.randint(max(1, len(sentences) - BATCH), ()))
        rows = [torch.tensor(with_copy(row)) for row in sentences[first : first + BATCH]]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)  # (batch, length)
        second = ids.eq(SEP).cumsum(dim=1).eq(1)
        # specials, whose ids are the smallest, are never masked
        masked = (torch.rand(ids.shape) < MASK_PROBABILITY) & second & (ids > MASK)
        hidden = model.model(ids.masked_fill(masked, MASK), attention_mask=ids.ne(PAD)).last_hidden_state
        logits = model.decoder(model.head(hidden[masked]))  # (masked positions, vocabulary)
        loss = torch.nn.functional.cross_entropy(logits, ids[masked])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if update % 500 == 0 or update == updates:
            perplexity = math.exp(total / ((update - 1) % 500 + 1))
            seconds = time.monotonic() - start
            print(
                f"update {update} of {updates}: perplexity {perplexity:.2f} of masked pieces, {seconds:.0f} s"
            )
            total = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", nargs="+", required=True, help="text to take the pieces from")
    parser.add_argument("--read", nargs="*", default=[], help="text to learn from, one sentence per line")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--updates", type=int, default=3000, help="batches to learn from")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    tokenizer = make_tokenizer(args.vocabulary, args.out)
    model = make_model(tokenizer.get_vocab_size())
    lines = [line for path in args.read for line in open_lines(path)]
    if lines and args.updates:
        read_text(model, [encoded.ids for encoded in tokenizer.encode_batch(lines)], args.updates)
    model.save_pretrained(args.out)


if __name__ == "__main__":
    main()
