"""BERT's knowledge for any fairseq sequence-to-sequence model.

fairseq imports this package through ``--user-dir`` and thereby learns our tasks, models, criterions and
bpe. Our own commands may run where fairseq or torch is not wanted, so without fairseq nothing is imported
here; they, and programs that import this package first, call `register`.
"""

import sys

__version__ = "0.1.0"


def register() -> None:
    """Make every part known to fairseq; the host by itself imports ``tasks/`` and ``models/`` only.

    Raises:
        InstallationError: fairseq cannot be imported; the message says what mends it.
    """
    from fairseq_bert_kd import compat

    compat.require_fairseq()
    compat.allow_fairseq_checkpoints()
    compat.broadcast_to_own_workers()
    import fairseq_bert_kd.criterions.cmlm_loss
    import fairseq_bert_kd.criterions.distillation_loss
    import fairseq_bert_kd.models.masked_lm_teacher
    import fairseq_bert_kd.models.student_presets
    import fairseq_bert_kd.tasks.conditional_masked_lm
    import fairseq_bert_kd.tasks.translation_with_teacher
    import fairseq_bert_kd.tokenization.bpe  # noqa: F401


if "fairseq" in sys.modules:
    register()
