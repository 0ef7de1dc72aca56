"""The teacher's tokenizer as fairseq's bpe and tokenizer.

``--bpe hf_tokenizer --hf-tokenizer PATH`` for generation; ``--eval-bleu-detok hf_tokenizer --eval-bleu-detok-args
'{"hf_tokenizer": "PATH"}'`` where the validation's BLEU shall be of words, not of pieces.
"""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.data.encoders import register_bpe, register_tokenizer
from fairseq.dataclass import FairseqDataclass

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer


@dataclass
class HfTokenizerConfig(FairseqDataclass):
    """Options of ``--bpe hf_tokenizer`` and of `hf_tokenizer` as a tokenizer."""

    hf_tokenizer: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder or hub name of the Hugging Face tokenizer that the text was tokenised with"
        },
    )


@register_tokenizer("hf_tokenizer", dataclass=HfTokenizerConfig)
@register_bpe("hf_tokenizer", dataclass=HfTokenizerConfig)
class HfTokenizerBPE:
    """fairseq's view of `HfTokenizer`: symbols as one string, joined by single spaces."""

    def __init__(self, cfg: HfTokenizerConfig) -> None:
        """Load the tokenizer.

        Raises:
            ValueError: ``--hf-tokenizer`` is missing, or names no tokenizer that we can use.
        """
        path = getattr(cfg, "hf_tokenizer", None)
        if not path:
            raise ValueError(
                "hf_tokenizer needs --hf-tokenizer (in --eval-bleu-detok-args: hf_tokenizer), which is not set. Give the folder or hub name of "
                "the tokenizer that `fairseq-bert-kd tokenize` was run with."
            )
        self.tokenizer = HfTokenizer(path)

    def encode(self, x: str) -> str:
        """Symbols of one line of text."""
        return " ".join(self.tokenizer.encode(x))

    def decode(self, x: str) -> str:
        """Text of symbols joined by spaces; never raises."""
        return self.tokenizer.decode(x)

    def is_beginning_of_word(self, x: str) -> bool:
        """Whether white space stands before the symbol, for fairseq's whole-word masking."""
        return self.tokenizer.is_beginning_of_word(x)
