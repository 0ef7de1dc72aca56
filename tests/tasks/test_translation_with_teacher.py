import torch

from fairseq_bert_kd.compat import load_checkpoint
from tests.tiny_chain import PLUGIN, logged, run_fairseq, train_student


def test_student_that_was_trained_with_a_removed_option_still_validates(chain, tmp_path):
    """fairseq-validate builds the criterion from the checkpoint's options, where an unknown one is an error."""
    checkpoint = train_student(chain.data, tmp_path / "student", updates=1)
    state = load_checkpoint(str(checkpoint))
    state["cfg"]["criterion"]["kd_approximate_tail"] = False
    torch.save(state, checkpoint)
    with logged("valid") as messages:
        run_fairseq(
            "validate", chain.data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--path", checkpoint,
            "--max-tokens", 300, "--cpu", "--valid-subset", "valid", "--num-workers", 0,
        )  # fmt: skip
    assert len(messages) == 1
