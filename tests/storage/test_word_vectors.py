import numpy as np
import pytest

from fairseq_bert_kd.storage.word_vectors import read_word_vectors


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_words_and_numbers(tmp_path):
    found = read_word_vectors(write(tmp_path / "v", "the 1 2.5\n. . 0 -1e-3\nthe 9 9\nwörd 3 4\n"))
    assert found.words == ("the", ". .", "wörd")
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors, [[1, 2.5], [0, -1e-3], [3, 4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("400000 300\nthe 1 2\n", "line 1: expected a word and its vector.*heading of word2vec"),
        ("the 1 2\na 1\n", "line 2: expected a word and 2 finite numbers"),
        ("the 1 2\n1 2\n", "line 2: expected a word and 2 finite numbers"),
        ("the 1 2\na 1 nan\n", "line 2: expected a word and 2 finite numbers"),
        ("the 1 2\na 1 b\n", "line 2: expected a word and 2 finite numbers"),
    ],
)
def test_broken_files(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_word_vectors(write(tmp_path / "v", text))
