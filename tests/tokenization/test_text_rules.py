"""What is done to text is said, and a folder that contradicts itself is not taken silently."""

import json
import logging

import pytest
import transformers
from tokenizers import Tokenizer, normalizers

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.text_rules import TextRules
from tests.tokenization.tiny_tokenizers import KINDS, build_tokenizer

WORDPIECE = "compatibility forms (ﬁ, ½, full width) are kept, one space stands between words, Chinese characters are spaced apart"
SAID = {
    "bert_uncased": f"case is lowered, accents are stripped, {WORDPIECE}",
    "bert_cased": f"case is kept, accents are kept, {WORDPIECE}",
    "roberta": "case is kept, accents are kept, compatibility forms (ﬁ, ½, full width) are kept, spaces are kept",
    "xlmr": "case is kept, accents are kept, compatibility forms (ﬁ, ½, full width) are kept, one space stands between words",
}


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger="fairseq_bert_kd.tokenization")
    return lambda level: [record.getMessage() for record in caplog.records if record.levelno == level]


def changed(kind, folder, drop=(), **config):
    """A folder of `build_tokenizer` with other keys in its tokenizer_config.json, as published models have."""
    build_tokenizer(kind, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | config
    path.write_text(json.dumps({key: value for key, value in settings.items() if key not in drop}))
    return folder


def with_normalizer(folder, normalizer):
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.normalizer = normalizer
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_its_rules_once_and_nothing_else(tmp_path, said, kind):
    build_tokenizer(kind, tmp_path / kind)
    HfTokenizer(str(tmp_path / kind))
    assert said(logging.INFO) == [f"tokenizer `{tmp_path / kind}`: {SAID[kind]}"]
    assert said(logging.WARNING) == []


def test_rules_are_what_a_function_does():
    assert TextRules.of(str) == TextRules(False, False, False, False, False)
    nfkc = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]).normalize_str
    assert TextRules.of(nfkc) == TextRules(True, False, True, False, False)


def test_a_cased_model_without_the_key_is_refused(tmp_path):
    """Issue 17, F1: transformers lowers the case against the folder's own tokenizer.json."""
    folder = changed("bert_cased", tmp_path / "cased", drop=["do_lower_case"])
    if not transformers.AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer.normalizer.lowercase:
        pytest.skip("this transformers follows tokenizer.json")
    with pytest.raises(
        ValueError, match="lower the case only because .* does not say `do_lower_case`"
    ) as error:
        HfTokenizer(str(folder))
    assert "its tokenizer.json keeps case and keeps accents" in str(error.value)
    assert "pieces of its vocabulary have capitals and can never occur" in str(error.value)
    assert '"do_lower_case": false' in str(error.value)
    said = HfTokenizer(str(changed("bert_cased", tmp_path / "said", do_lower_case=False)))
    assert said.decode(said.encode("Über")) == "Über"


CLASSES = (
    "BertTokenizer",
    "DistilBertTokenizerFast",
    "ElectraTokenizer",
    "MPNetTokenizer",
    "FunnelTokenizer",
)


@pytest.mark.parametrize("name", [*CLASSES, "PreTrainedTokenizerFast"])
def test_no_class_lowers_the_case_of_a_cased_model_silently(tmp_path, name):
    folder = changed("bert_cased", tmp_path / "cased", drop=["do_lower_case"], tokenizer_class=name)
    loaded = transformers.AutoTokenizer.from_pretrained(str(folder))
    if loaded.backend_tokenizer.normalizer.normalize_str("Ü") == "Ü":
        assert HfTokenizer(str(folder)).normalise("Über") == "Über"
    else:
        with pytest.raises(ValueError, match="does not say `do_lower_case`"):
            HfTokenizer(str(folder))


@pytest.mark.parametrize("key", [None, True])
def test_a_cased_vocabulary_alone(tmp_path, said, key):
    """Without tokenizer.json only the vocabulary tells; with the key it is the user's decision."""
    folder = changed("bert_cased", tmp_path / "cased", drop=["do_lower_case"])
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if key is None:
        (folder / "tokenizer_config.json").unlink()
        with pytest.raises(
            ValueError, match="does not say `do_lower_case`: .* have capitals and can never occur"
        ):
            HfTokenizer(str(folder))
    else:
        changed_config = {"tokenizer_class": "BertTokenizer", "do_lower_case": key}
        (folder / "tokenizer_config.json").write_text(json.dumps(changed_config))
        assert HfTokenizer(str(folder)).text_rules.lowers_case
        assert "have capitals and can never occur" in said(logging.WARNING)[0]


@pytest.mark.parametrize(
    ("kind", "key", "found"),
    [
        ("bert_cased", True, "its tokenizer.json keeps case and keeps accents"),
        (
            "bert_uncased",
            False,
            "its tokenizer.json lowers case and strips accents; its vocabulary has no piece with a capital",
        ),
    ],
)
def test_a_key_against_the_rest_of_the_folder_is_a_warning(tmp_path, said, kind, key, found):
    tokenizer = HfTokenizer(str(changed(kind, tmp_path / kind, do_lower_case=key)))
    assert tokenizer.text_rules.lowers_case == key
    assert found in said(logging.WARNING)[0]
    assert "Compare `do_lower_case`" in said(logging.WARNING)[0]


def test_umlauts_that_a_lower_casing_model_can_never_read(tmp_path, said):
    """`strip_accents` follows the case where it is not set: known of German models."""
    folder = changed("bert_uncased", tmp_path / "german")
    settings = json.loads((folder / "tokenizer.json").read_text())
    for piece in ["ä", "ö", "ü", *(f"{letter}{mark}" for letter in "bdfgklm" for mark in "äöü")]:
        settings["model"]["vocab"].setdefault(piece, len(settings["model"]["vocab"]))
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    by_id = sorted(settings["model"]["vocab"].items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in by_id))
    HfTokenizer(str(folder))
    assert "have accents and can never occur" in said(logging.WARNING)[0]
    assert "strip_accents" in said(logging.WARNING)[0]


def test_a_file_of_its_own_rules_is_followed(tmp_path, said):
    """Where tokenizer.json itself lowers the case and nothing overrides it, there is no contradiction with a file."""
    folder = changed("roberta", tmp_path / "roberta", tokenizer_class="PreTrainedTokenizerFast")
    with_normalizer(folder, normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]))
    tokenizer = HfTokenizer(str(folder))
    assert tokenizer.encode("ﬁ") == tokenizer.encode("fi")
    assert (
        "case is lowered, accents are kept, compatibility forms (ﬁ, ½, full width) are replaced"
        in said(logging.INFO)[0]
    )
