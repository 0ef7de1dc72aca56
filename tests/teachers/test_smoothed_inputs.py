"""What text smoothing reads of a corpus."""

import torch
from fairseq.data import Dictionary

from fairseq_bert_kd.teachers import smoothed_inputs
from fairseq_bert_kd.teachers.smoothed_inputs import word_counts


def test_words_of_all_parts_count_and_special_symbols_do_not(monkeypatch):
    """More sentences than are counted together."""
    monkeypatch.setattr(smoothed_inputs, "COUNTED_TOGETHER", 2)
    dictionary = Dictionary()
    a, b, never = (dictionary.add_symbol(word) for word in ("a", "b", "never"))
    end = dictionary.eos()
    first = [torch.tensor(words) for words in ([a, end], [a, b, a, end], [b, end])]
    second = [torch.tensor([a, dictionary.unk(), end])]
    counts = word_counts([first, second, []], dictionary)
    assert counts.tolist() == [0, 0, 0, 0, 4, 2, 0]
    assert never == 6
