"""Two models without a network over words: what the teacher's embeddings know, and the teacher's vectors of single tokens.

    python static_vectors.py TEACHER text/test.tsv --kind embeddings > cosines.txt

`embeddings` is the mean of the teacher's input embeddings. `static` follows Model2Vec's recipe: the teacher encodes every token of its
vocabulary alone, the vectors are reduced by principal components, and weighed by the rank of the token in place of its frequency.
Prints the cosine of each pair, one per line.
"""

import argparse

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from fairseq_bert_kd.text_lines import open_lines

COMPONENTS = 256  # Model2Vec's default
TOGETHER = 1024  # tokens that the teacher encodes at once


def input_embeddings(model) -> Tensor:
    return model.get_input_embeddings().weight.detach()


@torch.inference_mode()
def token_vectors(model, tokenizer) -> Tensor:
    """``(vocabulary, d)`` mean vectors of each token between the teacher's special tokens."""
    ids = torch.arange(len(tokenizer))
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    found = []
    for part in ids.split(TOGETHER):
        ends = (torch.full_like(part, token) for token in (first, last))
        inputs = torch.stack([next(ends), part, next(ends)], dim=1)
        found.append(model(input_ids=inputs)[0].mean(dim=1))
    return torch.cat(found)


def static(model, tokenizer) -> Tensor:
    """Reduced and weighed token vectors."""
    vectors = token_vectors(model, tokenizer)
    centred = vectors - vectors.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    weights = torch.log(1 + torch.arange(len(vectors), dtype=torch.float32))  # Zipf: rare tokens count more
    return centred @ directions[:COMPONENTS].T * weights[:, None]


def cosines(table: Tensor, tokenizer, pairs: list[list[str]]) -> list[float]:
    special = torch.tensor(tokenizer.all_special_ids)
    found = []
    for pair in pairs:
        vectors = []
        for text in pair:
            ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
            vectors.append(table[ids[~torch.isin(ids, special)]].mean(dim=0))
        found.append(float(torch.cosine_similarity(*vectors, dim=0)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher", help="folder or hub name")
    parser.add_argument("table", help="label, sentence and sentence, with a header")
    parser.add_argument("--kind", choices=("embeddings", "static"), required=True)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.teacher)
    model = AutoModel.from_pretrained(args.teacher).float().eval()
    _, *rows = (line.split("\t") for line in open_lines(args.table))
    table = input_embeddings(model) if args.kind == "embeddings" else static(model, tokenizer)
    for value in cosines(table, tokenizer, [row[1:3] for row in rows]):
        print(value)


if __name__ == "__main__":
    main()
