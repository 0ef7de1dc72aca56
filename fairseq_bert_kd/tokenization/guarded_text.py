"""What our tasks add where text comes in and goes out: tokenizer, dictionaries and checkpoint must belong together."""

import logging
from collections.abc import Sequence
from typing import Any

from fairseq.data import Dictionary

from fairseq_bert_kd.tokenization.bpe import HfTokenizerBPE, check_post_process
from fairseq_bert_kd.tokenization.dictionary import check_pieces, dictionary_digests
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

MARK = "\ufeff"  # the byte order mark as a character


class GuardedText:
    """Mixin for tasks that extend fairseq's ``translation``; name it before fairseq's own class.

    The task's state, which every checkpoint holds and `fairseq-generate` gives back, has the languages and the digests of
    the dictionaries and, where it is known, of the tokenizer.

    Attributes:
        tokenizer_digest: digest of the tokenizer that made the pieces; "" where it is not known.
    """

    cfg: Any
    src_dict: Dictionary
    tgt_dict: Dictionary
    tokenizer: Any
    tokenizer_digest = ""
    _at_head = True  # of the text that fairseq-interactive reads

    def state_dict(self) -> dict[str, Any]:
        """fairseq's, with ``digests`` by name (tokenizer, source and target dictionary) and ``languages``."""
        digests = self._digests()
        if self.tokenizer_digest:
            digests["tokenizer"] = self.tokenizer_digest
        return {**super().state_dict(), "digests": digests, "languages": self._languages()}  # type: ignore[misc]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare a checkpoint with the data folder; older checkpoints hold neither digests nor languages, and pass.

        With a joined dictionary nothing else tells that a pair is the wrong way round: a warning does, no error, since
        languages are only names.

        Raises:
            ValueError: the folder's dictionaries are not those of the checkpoint, or another checkpoint of the ensemble has
                another tokenizer.
        """
        trained_with = state_dict.get("digests", {})
        for name, digest in self._digests().items():
            if trained_with.get(name, digest) != digest:
                raise ValueError(
                    f"the {name.replace('_', ' ')} in `{self.cfg.data}` is not the one that the checkpoint was trained with "
                    f"(sha256 {digest[:12]} against {trained_with[name][:12]}): every word would become another one. Give "
                    "the folder of its training, or binarise with its dictionaries (fairseq-preprocess --srcdict/--tgtdict)"
                )
        source, target = state_dict.get("languages", (None, None))
        if source != target and self._languages() == [target, source]:
            logger.warning(
                "the checkpoint was trained to translate from %s to %s, and is used from %s to %s: swap --source-lang and "
                "--target-lang",
                *(source, target, target, source),
            )
        digest = trained_with.get("tokenizer", "")
        if digest and self.tokenizer_digest not in ("", digest):
            raise ValueError(
                "the checkpoints of an ensemble must have one tokenizer, but their pieces come from two (digests "
                f"{self.tokenizer_digest[:12]} and {digest[:12]}); leave one of them out"
            )
        self.tokenizer_digest = digest or self.tokenizer_digest
        super().load_state_dict(state_dict)  # type: ignore[misc]

    def _languages(self) -> list[str]:
        return [self.cfg.source_lang, self.cfg.target_lang]

    def _digests(self) -> dict[str, str]:
        return dictionary_digests({"source": self.src_dict, "target": self.tgt_dict})

    def build_bpe(self, args):
        """fairseq's, checked against dictionaries and checkpoint."""
        bpe = super().build_bpe(args)  # type: ignore[misc]
        if isinstance(bpe, HfTokenizerBPE):
            self.check_own_tokenizer(bpe.tokenizer, "--bpe hf_tokenizer")
        return bpe

    def build_model(self, cfg, from_checkpoint=False):
        """fairseq's, which also builds the decoder of ``--eval-bleu``; that is checked before the first update."""
        model = super().build_model(cfg, from_checkpoint)  # type: ignore[misc]
        decoder = self.tokenizer if self.cfg.eval_bleu else None
        if isinstance(decoder, HfTokenizerBPE):
            check_post_process(self.cfg.eval_bleu_remove_bpe, "--eval-bleu-remove-bpe")
            self.check_own_tokenizer(decoder.tokenizer, "--eval-bleu-detok hf_tokenizer")
            self.tokenizer_digest = decoder.tokenizer.digest()
        return model

    def get_interactive_tokens_and_lengths(self, lines: Sequence[str], encode_fn):
        """fairseq's, without a byte order mark at the head of the text, which fairseq-interactive leaves there."""
        if self._at_head and lines and lines[0].startswith(MARK):
            logger.warning("the text begins with a byte order mark, which is left out")
            lines = [lines[0].removeprefix(MARK), *lines[1:]]
        self._at_head = False
        return super().get_interactive_tokens_and_lengths(lines, encode_fn)  # type: ignore[misc]

    def check_own_tokenizer(self, tokenizer: HfTokenizer, option: str) -> None:
        """Check that a tokenizer made the dictionaries, and the checkpoint's pieces.

        Args:
            tokenizer: the tokenizer that an option names.
            option: the option, for the message.

        Raises:
            ValueError: it did not.
        """
        for side, dictionary in {"source": self.src_dict, "target": self.tgt_dict}.items():
            check_pieces(tokenizer, dictionary.symbols, f"the {side} dictionary")
        if self.tokenizer_digest not in ("", tokenizer.digest()):
            raise ValueError(
                f"{option}: the student's pieces come from another tokenizer than `{tokenizer.name}` (digest "
                f"{self.tokenizer_digest[:12]}, this one {tokenizer.digest()[:12]}): the same pieces, but other rules for "
                "text or other ids. Give the tokenizer that `fairseq-bert-kd tokenize` was run with"
            )
