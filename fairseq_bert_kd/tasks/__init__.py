"""Tasks; importing this package registers everything of ours that fairseq looks up by name.

fairseq imports this package for every ``--user-dir``, and by itself only the files of ``tasks/`` and ``models/``. Our own
commands import it too.

Raises:
    InstallationError: fairseq cannot be imported; the message says how to fix it.
"""

from fairseq_bert_kd import compat

compat.require_fairseq()
compat.allow_fairseq_checkpoints()
compat.broadcast_to_own_workers()
compat.leave_whole_numbers_to_ema()
compat.shuffle_after_curriculum()
compat.keep_freed_memory()
compat.limit_matrix_programs()

import fairseq_bert_kd.criterions.conditional_masked_lm  # noqa: E402
import fairseq_bert_kd.criterions.distillation_loss  # noqa: E402
import fairseq_bert_kd.criterions.entity_masked_lm  # noqa: E402
import fairseq_bert_kd.criterions.entity_typing  # noqa: E402
import fairseq_bert_kd.criterions.layer_distillation  # noqa: E402
import fairseq_bert_kd.criterions.policy_gradient  # noqa: E402
import fairseq_bert_kd.criterions.ranking_margin  # noqa: E402
import fairseq_bert_kd.criterions.sentence_representation  # noqa: E402
import fairseq_bert_kd.criterions.smoothed_layer_distillation  # noqa: E402
import fairseq_bert_kd.criterions.smoothed_sentence_prediction  # noqa: E402
import fairseq_bert_kd.models.decomposable_attention  # noqa: E402
import fairseq_bert_kd.models.entity_encoder  # noqa: E402
import fairseq_bert_kd.models.hf_encoder  # noqa: E402
import fairseq_bert_kd.models.masked_lm_teacher  # noqa: E402
import fairseq_bert_kd.models.sentence_lstm  # noqa: E402
import fairseq_bert_kd.models.student_presets  # noqa: E402
import fairseq_bert_kd.models.tinybert  # noqa: E402
import fairseq_bert_kd.optim.adam_by_part  # noqa: E402
import fairseq_bert_kd.optim.fused_adam  # noqa: E402
import fairseq_bert_kd.tasks.conditional_masked_lm  # noqa: E402
import fairseq_bert_kd.tasks.entity_sentence_prediction  # noqa: E402
import fairseq_bert_kd.tasks.ranking_margin  # noqa: E402
import fairseq_bert_kd.tasks.sentence_prediction_with_teacher  # noqa: E402
import fairseq_bert_kd.tasks.sentence_vectors  # noqa: E402
import fairseq_bert_kd.tasks.translation_with_reward  # noqa: E402
import fairseq_bert_kd.tasks.translation_with_teacher  # noqa: E402
import fairseq_bert_kd.tokenization.bpe  # noqa: E402, F401
