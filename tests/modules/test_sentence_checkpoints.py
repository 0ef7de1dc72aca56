"""From which checkpoint the training of a sentence model goes on, by fairseq's own rule."""

import argparse

from fairseq_bert_kd.modules.sentence_checkpoints import continued_checkpoint


def test_which_checkpoint_is_continued(tmp_path):
    cfg = argparse.Namespace(
        save_dir=str(tmp_path), restore_file="checkpoint_last.pt", finetune_from_model=None
    )
    assert continued_checkpoint(cfg) is None
    (tmp_path / "other.pt").touch()
    cfg.finetune_from_model = str(tmp_path / "other.pt")
    assert continued_checkpoint(cfg) == cfg.finetune_from_model
    (tmp_path / "checkpoint_last.pt").touch()  # of a run that began with it
    assert continued_checkpoint(cfg) == str(tmp_path / "checkpoint_last.pt")
    cfg.restore_file = str(tmp_path / "other.pt")
    assert continued_checkpoint(cfg) == cfg.restore_file
