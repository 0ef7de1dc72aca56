"""The chain as its users run it: learning, decoding with and without the plugin, resuming, bad input."""

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, dictionary_digest
from fairseq_bert_kd.storage.schema import ChunkData
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter, store_path
from tests.tiny_chain import (
    PLUGIN,
    build_teacher_folder,
    dump,
    logged,
    preprocess,
    run_fairseq,
    tokenize_corpus,
    train_student,
    train_teacher,
    write_corpus,
)
from tests.without_plugin import WITHOUT_PLUGIN


def hypotheses(output):
    """Sentence id to detokenised text."""
    return {int(key): text for key, text in re.findall(r"^D-(\d+)\t[^\t]*\t(.*)$", output, flags=re.M)}


def generate(chain, checkpoint, *arguments, data=None):
    return run_fairseq(
        "generate", data or chain.data, "--user-dir", PLUGIN, "--task", "translation_with_teacher",
        "--path", checkpoint, "--gen-subset", "test", "--beam", 2, "--max-len-b", 10, "--cpu",
        "--bpe", "hf_tokenizer", "--hf-tokenizer", chain.bert, *arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def student(chain, tmp_path_factory):
    return train_student(chain.data, tmp_path_factory.mktemp("student"))


def test_decoding_covers_every_sentence_and_gives_raw_text(chain, student):
    texts = hypotheses(generate(chain, student))
    assert sorted(texts) == list(range(20))  # fairseq alone drops the last 4 of 20
    assert not any("##" in text or "@@" in text for text in texts.values())


def test_score_reads_the_output_and_prints_signatures(chain, student, tmp_path, capsys):
    (tmp_path / "out").write_text(generate(chain, student), encoding="utf-8")
    arguments = [
        "score",
        "--reference",
        str(chain.raw / "test.en"),
        "--lowercase",
        f"plain={tmp_path / 'out'}",
    ]
    assert cli_main(arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^plain +1 +\d+\.\d\d ", printed, flags=re.M)
    assert "case:lc" in printed
    assert "version:" in printed


@pytest.mark.parametrize(
    "arch", ["distilled_transformer_small", "distilled_lstm_small", "transformer_iwslt_de_en"]
)
def test_stock_fairseq_decodes_our_student_without_the_plugin(chain, tmp_path, arch):
    small = ["--encoder-embed-dim", 32, "--decoder-embed-dim", 32]
    if "lstm" in arch:
        small += ["--encoder-hidden-size", 32, "--decoder-hidden-size", 32, "--decoder-out-embed-dim", 32]
    checkpoint = train_student(chain.data, tmp_path / "student", "--arch", arch, *small)
    ours = generate(chain, checkpoint)
    command = [sys.executable, WITHOUT_PLUGIN, "fairseq_cli.generate", "cli_main", chain.data, "--path", checkpoint,
               "--gen-subset", "test", "--beam", 2, "--max-len-b", 10, "--cpu", "--required-batch-size-multiple", 1]  # fmt: skip
    # fairseq's own checkpoints carry an argparse.Namespace: torch's switch for such files
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "PYTHONPATH": ""}
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    pieces = re.compile(r"^H-(\d+)\t[^\t]*\t(.*)$", flags=re.M)
    assert len(pieces.findall(result.stdout)) == 20
    assert sorted(pieces.findall(result.stdout)) == sorted(pieces.findall(ours))


def values(messages, key):
    """All values that a fairseq log gives to ``key``, in order."""
    return [float(value) for value in re.findall(rf"\b{key}[ =]([\d.]+)", "\n".join(messages))]


def test_teacher_and_student_learn_to_reverse_a_sentence(tmp_path):
    """Sentences of one length, so that positions alone tell which source word to look at."""
    bert = build_teacher_folder("bert", tmp_path / "bert", dim=64)
    write_corpus(tmp_path / "raw", train=1500, others=50, lengths=(5, 5))
    tokenize_corpus(tmp_path / "raw", tmp_path / "pieces", bert)
    data = tmp_path / "data"
    preprocess(tmp_path / "pieces", data)
    schedule = ["--lr-scheduler", "inverse_sqrt", "--warmup-updates", 40, "--lr", 2e-3, "--max-tokens", 600]
    with logged("valid") as messages:
        teacher = train_teacher(
            data, bert, tmp_path / "teacher", *schedule, "--cmlm-mask-prob", 0.3, updates=300
        )
    assert values(messages, "masked_accuracy")[-1] > 90  # chance is 5 % of 22 words
    assert dump(data, teacher) == 0
    with logged("valid") as messages, logged("fairseq_bert_kd.data.teacher_stores") as ours:
        train_student(data, tmp_path / "student", *schedule, "--kd-temperature", 1, updates=300)
    assert "belongs to these data: 1000 sentences compared by hash" in ours[0]
    assert "1500 of 1500 sentences covered" in ours[1]
    assert values(messages, "ppl")[-1] < 2  # chance is 22


def test_training_resumes_where_it_stopped(chain, tmp_path):
    log = ["--log-interval", 1, "--log-format", "simple", "--seed", 3]
    with logged("train_inner") as whole:
        train_teacher(chain.data, chain.bert, tmp_path / "whole", *log, updates=6)
    with logged("train_inner") as parts:
        train_teacher(chain.data, chain.bert, tmp_path / "parts", *log, updates=4)
        train_teacher(chain.data, chain.bert, tmp_path / "parts", *log, updates=6)
    assert values(parts, "num_updates") == [1, 2, 3, 4, 5, 6]
    # masks are a function of seed, epoch and sentence; fairseq seeds dropout by update
    assert values(parts, "loss") == values(whole, "loss")


def test_student_resumes_and_decodes_after_validation_with_bleu(chain, tmp_path):
    """--eval-bleu puts numpy numbers into checkpoints; loading stays safe."""
    bleu = ["--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_b": 8}', "--best-checkpoint-metric", "bleu",
            "--maximize-best-checkpoint-metric"]  # fmt: skip
    train_student(chain.data, tmp_path / "student", *bleu, updates=2)
    with logged("valid") as messages:
        checkpoint = train_student(chain.data, tmp_path / "student", *bleu, updates=3)
    assert values(messages, "num_updates") == [3]
    assert len(hypotheses(generate(chain, checkpoint))) == 20


def test_validation_bleu_of_words(chain, tmp_path, caplog):
    train_student(
        chain.data, tmp_path / "student", "--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_b": 8}',
        "--eval-bleu-detok", "hf_tokenizer", "--eval-bleu-detok-args", json.dumps({"hf_tokenizer": str(chain.bert)}),
        "--eval-bleu-print-samples", updates=1,
    )  # fmt: skip
    shown = [
        message.split("example reference: ")[1]
        for message in caplog.messages
        if "example reference" in message
    ]
    assert shown
    assert set(shown) <= set((chain.raw / "valid.en").read_text(encoding="utf-8").splitlines())


def validate(chain, checkpoint, *arguments):
    with logged("valid") as messages:
        run_fairseq("validate", chain.data, "--user-dir", PLUGIN, "--path", checkpoint, "--max-tokens", 300, "--cpu",
                    "--valid-subset", "valid", "--num-workers", 0, *arguments)  # fmt: skip
    return messages


def test_validation_masks_are_the_same_every_time(chain):
    arguments = ["--task", "conditional_masked_lm", "--criterion", "conditional_masked_lm"]
    first, second = (validate(chain, chain.teacher, *arguments) for _ in range(2))
    assert values(first, "masked_accuracy") == values(second, "masked_accuracy")
    assert values(first, "ppl") == values(second, "ppl")
    assert len(values(first, "ppl")) == 1


def test_validation_loss_is_that_of_a_plain_run(chain, student):
    """fairseq-validate with fairseq's own task and criterion agrees with ours."""
    ours = validate(chain, student, "--task", "translation_with_teacher", "--label-smoothing", 0.1,
                    "--criterion", "label_smoothed_cross_entropy_with_distillation")  # fmt: skip
    plain = validate(chain, student, "--task", "translation", "--label-smoothing", 0.1,
                     "--criterion", "label_smoothed_cross_entropy", "--required-batch-size-multiple", 1)  # fmt: skip
    assert values(ours, "loss") == pytest.approx(
        values(plain, "loss"), abs=2e-3
    )  # three decimals are printed
    assert len(values(ours, "loss")) == 1


def test_interactive_takes_raw_text(chain, student):
    command = [sys.executable, "-m", "fairseq_cli.interactive", chain.data, "--user-dir", PLUGIN, "--task",
               "translation_with_teacher", "-s", "de", "-t", "en", "--path", student, "--bpe", "hf_tokenizer",
               "--hf-tokenizer", chain.bert, "--cpu", "--max-len-b", 10]  # fmt: skip
    result = subprocess.run(
        list(map(str, command)), input="Zwei Kind, rot!\n", capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert re.search(r"^D-0\t", result.stdout, flags=re.M)


def test_separate_dictionaries(chain, tmp_path):
    tokenize_corpus(chain.raw, tmp_path / "pieces", chain.bert)
    data = tmp_path / "data"
    preprocess(tmp_path / "pieces", data, "--nwordssrc", -1)  # no --joined-dictionary
    (data / "dict.de.txt").read_text(encoding="utf-8")
    teacher = train_teacher(data, chain.bert, tmp_path / "teacher")
    assert dump(data, teacher) == 0
    checkpoint = train_student(data, tmp_path / "student", "--arch", "transformer_iwslt_de_en",
                               "--encoder-embed-dim", 32, "--decoder-embed-dim", 32)  # fmt: skip
    assert len(hypotheses(generate(chain, checkpoint, data=data))) == 20


# ---- bad input -------------------------------------------------------------------------------------


@pytest.fixture
def data(chain, tmp_path):
    shutil.copytree(chain.data, tmp_path / "data")
    return tmp_path / "data"


def store(data):
    return store_path(data, "train", "de", "en")


def rewrite(data, sentences=None, symbols=None, **changes):
    """Replace the training store by one with other header fields, dictionary or fewer sentences."""
    import dataclasses

    reader = TopKReader(store(data))
    symbols = symbols or reader.symbols()
    changes |= {"dictionary_size": len(symbols), "dictionary_digest": dictionary_digest(symbols)}
    info = dataclasses.replace(reader.info, **changes)
    whole = reader.chunk(0)
    assert len(whole.status) == len(reader)
    kept = slice(sentences)
    lengths = whole.lengths[kept].copy()
    hashes = {side: values[kept].copy() for side, values in whole.hashes.items()}
    data_kept = ChunkData(hashes, lengths, whole.status[kept].copy(), whole.records[: lengths.sum()].copy())
    with TopKWriter(store(data), info, lengths, symbols, overwrite=True) as writer:
        writer.write_chunk(0, data_kept)
        writer.finish()


def changed_symbols(data):
    symbols = TopKReader(store(data)).symbols()
    return [*symbols[:6], "Unfug", *symbols[7:]]


def test_missing_store_names_file_and_command(data, tmp_path):
    store(data).unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.de-en\.en\.topk.*fairseq-bert-kd dump"):
        train_student(data, tmp_path / "student")


def test_plain_training_needs_no_store(data, tmp_path):
    store(data).unlink()
    assert train_student(data, tmp_path / "student", "--kd-weight", 0).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_dictionary_digest": "0" * 64}, "made with another source dictionary"),
        ({"split": "valid"}, "was made for valid de-en, the data are train de-en"),
        ({"target_lang": "fr"}, "was made for train de-fr"),
        ({"sentences": 100}, "shorter than the data: 100 sentences against 120"),
    ],
)
def test_store_of_other_data_is_refused(data, tmp_path, changes, message):
    rewrite(data, **changes)
    with pytest.raises(ValueError, match=message) as error:
        train_student(data, tmp_path / "student")
    assert f"fairseq-bert-kd dump {data}" in str(error.value)


def test_dictionary_that_differs_is_named_with_its_line(data, tmp_path):
    rewrite(data, symbols=changed_symbols(data))
    there = TopKReader(store(data)).symbols()[6]
    here = (data / "dict.en.txt").read_text(encoding="utf-8").split("\n")[2].split(" ")[0]
    assert there == "Unfug"
    message = rf"symbol 6 \(line 3 of dict\.en\.txt\) was `Unfug`, it is `{re.escape(here)}` here"
    with pytest.raises(ValueError, match=message):
        train_student(data, tmp_path / "student")


@pytest.mark.parametrize("side", ["de", "en"])
def test_other_sentences_of_the_same_length_are_refused_by_number(data, tmp_path, side):
    path = data / f"train.de-en.{side}.bin"
    content = np.frombuffer(path.read_bytes(), "<u2").copy()
    sizes = [len(item) for item in IndexedTokens(data / f"train.de-en.{side}")]
    place = sum(sizes[:17])
    content[place] = content[place] + 1 if sizes[17] > 1 else content[place]
    assert sizes[17] > 1
    path.write_bytes(content.tobytes())
    name = {"de": "source", "en": "target"}[side]
    message = (
        rf"the {name} of sentence 17 \(line 18 of the text\) has other tokens here.*fairseq-bert-kd dump"
    )
    with pytest.raises(ValueError, match=message):
        train_student(data, tmp_path / "student")
    assert train_student(data, tmp_path / "plain", "--kd-weight", 0).exists()


def test_all_sentences_can_be_compared(chain, tmp_path, caplog):
    train_student(chain.data, tmp_path / "student", "--kd-check", "all")
    assert "belongs to these data: 120 sentences compared by hash" in caplog.text


def test_tokenizer_of_the_teacher_is_compared(chain, tmp_path, caplog):
    from tests.tokenization.tiny_tokenizers import build_tokenizer

    assert train_student(chain.data, tmp_path / "student", "--kd-tokenizer", chain.bert).exists()
    build_tokenizer("bert_uncased", tmp_path / "other")  # the same pieces, other rules for text
    config = tmp_path / "other" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"do_lower_case": False}))
    with pytest.raises(ValueError, match="from a teacher with another tokenizer than"):
        train_student(chain.data, tmp_path / "refused", "--kd-tokenizer", tmp_path / "other")
    live = ["--kd-live-teacher", chain.teacher]
    with pytest.raises(
        ValueError, match="--kd-live-teacher .* comes from a teacher with another tokenizer than"
    ):
        train_student(chain.data, tmp_path / "refused", *live, "--kd-tokenizer", tmp_path / "other")


def test_store_of_the_first_version_is_refused_with_the_command_that_rebuilds_it(data, tmp_path):
    store(data).write_bytes(struct.pack("<8sII", b"KDTOPK\r\n", 1, 2) + b"{}" + bytes(1000))
    command = f"`fairseq-bert-kd dump {data} --path TEACHER.pt --subset train --overwrite`"
    with pytest.raises(ValueError, match=re.escape(command)):
        train_student(data, tmp_path / "student")


def test_index_that_fairseq_damaged_is_refused(data, tmp_path, capsys, chain):
    index = data / "train.de-en.de.idx"
    content = bytearray(index.read_bytes())
    count = struct.unpack_from("<Q", content, 18)[0]
    struct.pack_into(
        "<q", content, 26 + 4 * count + 8 * 40, 100 - 2**32
    )  # a position that went through int32
    index.write_bytes(content)
    message = "train.de-en.de.idx is damaged from sentence 40 on"
    for train in (train_student, lambda *folders: train_teacher(folders[0], chain.bert, folders[1])):
        with pytest.raises(ValueError, match=message):
            train(data, tmp_path / "out")
    assert dump(data, chain.teacher, "--overwrite") == 2
    assert message in capsys.readouterr().err


def test_parts_of_a_corpus_with_the_first_one_repeated(chain, data, tmp_path, caplog):
    add_part(data)
    assert dump(data, chain.teacher, "--subset", "train1") == 0
    for repeats in (None, 1, 3):
        caplog.clear()
        options = [] if repeats is None else ["--upsample-primary", repeats]
        train_student(data, tmp_path / f"student{repeats}", *options, updates=1)
        assert "teacher rows for train1" in caplog.text


def add_part(data):
    """``train1``: the validation set again, without a store."""
    for path in data.glob("valid.de-en.*"):
        shutil.copy(path, data / path.name.replace("valid", "train1"))


def test_part_without_a_store_is_learned_from_labels_when_asked(chain, data, tmp_path):
    add_part(data)
    with pytest.raises(FileNotFoundError, match="train1.de-en.en.topk does not exist"):
        train_student(data, tmp_path / "refused")
    with logged("fairseq_bert_kd.data.teacher_stores") as ours, logged("train_inner") as steps:
        # one batch holds everything: 20 sentences beside 120, then beside 240
        for repeats in (1, 2):
            options = ["--kd-label-only", "train1", "--upsample-primary", repeats, "--log-interval", 1]
            train_student(data, tmp_path / f"{repeats}", *options, "--max-tokens", 9999,
                          "--required-batch-size-multiple", 1, "--log-format", "simple",
                          updates=1)  # fmt: skip
    assert "no teacher rows for train1: 20 sentences of --kd-label-only" in ours
    lengths = {}
    for part in ("train", "train1"):
        targets = IndexedTokens(data / f"{part}.de-en.en")
        lengths[part] = sum(len(targets[i]) for i in range(len(targets)))
    expected = [100 * r * lengths["train"] / (r * lengths["train"] + lengths["train1"]) for r in (1, 2)]
    assert values(steps, "kd_coverage") == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("trian1", "--kd-label-only names `trian1`, but the training corpus has the parts train, train1"),
        ("train,train1", "names every part of the training corpus .train, train1., .* use --kd-weight 0"),
    ],
)
def test_wrong_names_of_parts_without_a_store_are_refused(chain, data, tmp_path, names, message):
    add_part(data)
    with pytest.raises(ValueError, match=message):
        train_student(data, tmp_path / "student", "--kd-label-only", names)


def test_validation_sets_that_are_joined_repeat_as_fairseq_repeats_them(chain, data, tmp_path):
    for path in list(data.glob("valid.de-en.*")):
        shutil.copy(path, data / path.name.replace("valid", "valid1"))
    for part in ("train", "valid", "valid1"):
        dump(data, chain.teacher, "--subset", part, "--overwrite")
    options = ["--combine-valid-subsets", "--ignore-unused-valid-subsets", "--upsample-primary", 2]
    with logged("valid") as messages:
        train_student(data, tmp_path / "student", *options, updates=1)
    assert values(messages, "kd_coverage") == [100]


def test_draws_of_unlike_stores_are_not_mixed(chain, data, tmp_path):
    add_part(data)
    sampled = ["--samples", 2, "--overwrite"]
    assert dump(data, chain.teacher, *sampled, "--gold") == 0
    assert dump(data, chain.teacher, *sampled, "--subset", "train1") == 0
    options = ["--kd-temperature", 1]
    with pytest.raises(
        ValueError, match="train was dumped with --gold, train1 without; dump one of them again"
    ):
        train_student(data, tmp_path / "refused", *options, "--kd-objective", "sampled")
    assert train_student(data, tmp_path / "paper", *options).exists()


def test_prepended_symbols_are_refused(chain, tmp_path, monkeypatch):
    """Tasks that build on fairseq's translation do so with language ids."""
    import functools

    from fairseq.tasks import translation

    prepending = functools.partial(translation.load_langpair_dataset, prepend_bos=True)
    monkeypatch.setattr(translation, "load_langpair_dataset", prepending)
    with pytest.raises(
        ValueError, match="target 0 of train.de-en.en.topk has .* an option prepends or appends symbols"
    ):
        train_student(chain.data, tmp_path / "student")
    assert train_student(chain.data, tmp_path / "plain", "--kd-weight", 0).exists()


def test_truncated_sources_keep_their_teacher(chain, tmp_path):
    seen = {}
    for name, cut in {"cut": ["--truncate-source", "--max-source-positions", 5], "whole": []}.items():
        with logged("train_inner") as steps:
            options = [*cut, "--max-tokens", 9999, "--lr", 0, "--log-interval", 1, "--log-format", "simple"]
            train_student(chain.data, tmp_path / name, *options, updates=1)
        seen[name] = {
            key: values(steps, key) for key in ("kd_coverage", "kd_captured", "kd_teacher_tail", "nll_loss")
        }
    assert seen["cut"]["kd_coverage"] == [100]
    for key in ("kd_captured", "kd_teacher_tail"):  # the teacher's own, so not the student's business
        assert seen["cut"][key] == seen["whole"][key]
    assert seen["cut"]["nll_loss"] != seen["whole"]["nll_loss"]  # it was cut


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kd-topk", 9], "holds the 8 best tokens, --kd-topk is 9"),
        (["--kd-weight", 1.5], r"--kd-weight must be in \[0, 1\], got 1.5"),
        (["--kd-temperature", -1], "--kd-temperature must be positive, got -1"),
        (["--left-pad-target"], "--left-pad-target moves target tokens"),
        (["--upsample-primary", 0], "--upsample-primary must be at least 1, got 0"),
        (["--num-batch-buckets", 2], "--num-batch-buckets moves target tokens"),
        (["--kd-live-passes", 3], "--kd-live-passes is for --kd-live-teacher, which is not given"),
    ],
)
def test_bad_student_options_are_refused(chain, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        train_student(chain.data, tmp_path / "student", *arguments)


@pytest.mark.parametrize(
    "schedule",
    [(), ("--kd-warmup-updates", 1),
     ("--kd-weight", 0, "--kd-schedule", "linear", "--kd-schedule-updates", 1, "--kd-weight-end", 0.5)],
    ids=["at once", "after a warm-up", "from weight 0"],
)  # fmt: skip
def test_distillation_with_fairseqs_own_task_is_refused(chain, tmp_path, schedule):
    """It attaches no rows, and never says that a warm-up is over."""
    with pytest.raises(ValueError, match="train with --task translation_with_teacher"):
        train_student(chain.data, tmp_path / "student", "--task", "translation", *schedule)


def test_distillation_options_are_not_silently_dropped_by_another_criterion(chain, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_student(
            chain.data, tmp_path / "student", "--criterion", "label_smoothed_cross_entropy", "--kd-topk", 4
        )
    assert "unrecognized arguments: --kd-topk 4" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--kd-live-teacher", "--kd-stores"])
def test_a_teacher_that_no_criterion_learns_from_is_refused(chain, tmp_path, option):
    """These options are the task's, so fairseq takes them with any criterion."""
    with pytest.raises(
        ValueError, match=rf"{option} is given, and --criterion label_smoothed_cross_entropy learns"
    ):
        train_student(
            chain.data, tmp_path / "student", "--criterion", "label_smoothed_cross_entropy", option, "some"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cmlm-mask-prob", 0], r"--cmlm-mask-prob must be in \(0, 1\], got 0"),
        (["--eval-bleu"], "--eval-bleu is for students"),
        (["--num-batch-buckets", 2], "--num-batch-buckets 2 pads every sentence"),
        (["--criterion", "cross_entropy"], "needs --criterion conditional_masked_lm"),
        (["--arch", "transformer"], "unrecognized arguments: --teacher-model"),
        (["--teacher-model", "no/such-model"], "no/such-model"),
    ],
)
def test_bad_teacher_options_are_refused(chain, tmp_path, arguments, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as error:
        train_teacher(chain.data, chain.bert, tmp_path / "teacher", *arguments)
    assert re.search(message, str(error.value) + capsys.readouterr().err)


def test_dictionary_of_unknown_symbols_is_refused(chain, tmp_path):
    shutil.copytree(chain.raw, tmp_path / "raw")
    (tmp_path / "raw" / "train.en").write_text("Untokenised, unknown words!\n" * 120, encoding="utf-8")
    preprocess(tmp_path / "raw", tmp_path / "data")
    with pytest.raises(ValueError, match=r"of \d+ are not: .*fairseq-bert-kd tokenize"):
        train_teacher(tmp_path / "data", chain.bert, tmp_path / "teacher")


def test_sides_of_different_length_are_refused(chain, data, tmp_path):
    for suffix in ("bin", "idx"):  # German of the training set, English of the test set
        shutil.copy(data / f"test.de-en.en.{suffix}", data / f"train.de-en.en.{suffix}")
    message = "source and target of split `train` have different numbers of sentences"
    with pytest.raises(ValueError, match=message):
        train_teacher(data, chain.bert, tmp_path / "teacher")
    with pytest.raises(ValueError, match=message):
        train_student(data, tmp_path / "student")


def test_empty_lines_go_through_the_chain(chain, tmp_path):
    for language in ("de", "en"):
        lines = (chain.raw / f"train.{language}").read_text(encoding="utf-8").split("\n")
        lines[3 if language == "de" else 5] = ""
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / "raw" / f"train.{language}").write_text("\n".join(lines), encoding="utf-8")
        for split in ("valid", "test"):
            shutil.copy(chain.raw / f"{split}.{language}", tmp_path / "raw")
    tokenize_corpus(tmp_path / "raw", tmp_path / "pieces", chain.bert)
    preprocess(tmp_path / "pieces", tmp_path / "data")
    teacher = train_teacher(tmp_path / "data", chain.bert, tmp_path / "teacher")
    assert dump(tmp_path / "data", teacher) == 0
    lengths = TopKReader(store(tmp_path / "data")).lengths
    assert lengths[5] == 1  # end of sentence alone
    assert math.isfinite(torch.load(train_student(tmp_path / "data", tmp_path / "student"), weights_only=True)
                         ["extra_state"]["train_iterator"]["epoch"])  # fmt: skip


def test_half_precision_batches_keep_the_stored_logits(chain):
    """What --fp16 does to a batch, done to a batch of ours."""
    from fairseq import utils

    from fairseq_bert_kd.batch import TEACHER, TeacherRequirements, unpack
    from fairseq_bert_kd.data.store_rows import StoreRows

    reader = TopKReader(store(chain.data))
    rows = StoreRows([reader], TeacherRequirements(8)).teacher_batch(np.array([4, 0]), width=60)
    half = utils.apply_to_sample(lambda t: t.half() if t.dtype is torch.float32 else t, {TEACHER: [rows]})
    converted, stored = half[TEACHER][0], reader.rows(4)
    fields = unpack(converted)
    logits, normalisers = fields["topk_logits"], fields["log_normalisers"]
    assert np.array_equal(logits[0, : len(stored)].numpy(), stored["topk_logits"].astype(np.float32))
    assert np.array_equal(normalisers[0, : len(stored)].numpy(), stored["log_normalisers"])
