"""The teacher's tokenizer as fairseq's bpe and tokenizer.

``--bpe hf_tokenizer --hf-tokenizer PATH`` for generation; ``--eval-bleu-detok hf_tokenizer --eval-bleu-detok-args
'{"hf_tokenizer": "PATH"}'`` where the validation's BLEU shall be of words, not of pieces.
"""

import logging
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.data.encoders import register_bpe, register_tokenizer
from fairseq.dataclass import FairseqDataclass
from omegaconf import II, DictConfig, OmegaConf

from fairseq_bert_kd.tokenization.dictionary import foreign_symbols
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

# fairseq's post-processing that takes away the spaces between pieces, or the marks in them, by which text is made
DAMAGING = ("sentencepiece", "wordpiece", "letter", "_EOW", "@@")
NEEDLESS = ("@@ ", "subword_nmt")  # plain --remove-bpe; it finds nothing but words with @


@dataclass
class HfTokenizerConfig(FairseqDataclass):
    """Options of ``--bpe hf_tokenizer`` and of `hf_tokenizer` as a tokenizer."""

    hf_tokenizer: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder or hub name of the Hugging Face tokenizer that the text was tokenised with"
        },
    )
    # no option of its own: see `check_post_process`
    post_process: Optional[str] = II("common_eval.post_process")


@register_tokenizer("hf_tokenizer", dataclass=HfTokenizerConfig)
@register_bpe("hf_tokenizer", dataclass=HfTokenizerConfig)
class HfTokenizerBPE:
    """fairseq's view of `HfTokenizer`: symbols as one string, joined by single spaces."""

    def __init__(self, cfg: HfTokenizerConfig) -> None:
        """Load the tokenizer.

        Raises:
            ValueError: ``--hf-tokenizer`` is missing, or names no tokenizer that we can use; or another option makes text
                of the pieces first.
        """
        path = getattr(cfg, "hf_tokenizer", None)
        if not path:
            raise ValueError(
                "hf_tokenizer needs --hf-tokenizer (in --eval-bleu-detok-args: hf_tokenizer), which is not set. Give the folder or hub name of "
                "the tokenizer that `fairseq-bert-kd tokenize` was run with."
            )
        check_post_process(_post_process(cfg), "--post-process")
        self.tokenizer = HfTokenizer(path)
        self._warned = False

    def encode(self, x: str) -> str:
        """Symbols of one line of text."""
        return " ".join(self.tokenizer.encode(x))

    def decode(self, x: str) -> str:
        """One line of text of symbols joined by spaces; never raises, but says once if they are of another tokenizer."""
        symbols = x.split()
        foreign = [] if self._warned else foreign_symbols(self.tokenizer, symbols)
        if foreign:
            self._warned = True
            logger.warning(
                "`%s` is not a piece of tokenizer `%s`, so it stays as it is. Another tokenizer made the student's pieces, or "
                "an option changed them before (--post-process, --replace-unk).",
                *(foreign[0], self.tokenizer.name),
            )
        # a model may write the byte of a line feed, which no line of its training had
        return self.tokenizer.decode(symbols).replace("\n", " ")

    def is_beginning_of_word(self, x: str) -> bool:
        """Whether white space stands before the symbol, for fairseq's whole-word masking."""
        return self.tokenizer.is_beginning_of_word(x)


def check_post_process(value: str | None, option: str) -> None:
    """Check that fairseq leaves the pieces alone before ``hf_tokenizer`` makes text of them.

    Args:
        value: what the option says.
        option: its name, for the message.

    Raises:
        ValueError: a value that joins words or takes marks away.
    """
    if value in DAMAGING:
        raise ValueError(
            f"{option} {value} changes the pieces before hf_tokenizer makes text of them, so words would run together or "
            f"fall apart. hf_tokenizer needs no other option: leave {option} out."
        )
    if value in NEEDLESS:
        logger.warning(
            "%s is not needed beside hf_tokenizer, which makes text of the pieces itself, and damages words with @; leave it "
            "out (also under its other name, --remove-bpe)",
            option,
        )


def _post_process(cfg: Any) -> str | None:
    """Value of ``--post-process``; None where the configuration does not say."""
    if not isinstance(cfg, DictConfig):
        return None  # --eval-bleu-detok-args, of which the task knows more
    return OmegaConf.select(cfg, "post_process", throw_on_resolution_failure=False)
