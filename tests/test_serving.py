"""A student in CTranslate2: the same translations as fairseq's, in int8 too, and served without torch."""

import math
import os
import re
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

import ctranslate2
import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from tests.tiny_chain import (
    PLUGIN,
    preprocess,
    run_fairseq,
    tokenize_corpus,
    train_student,
    write_corpus,
)
from tests.tokenization.tiny_tokenizers import build_tokenizer
from tests.without_plugin import WITHOUT_PLUGIN

SERVING = PLUGIN.parent / "examples" / "serving"
BEAM = ["--beam", 5, "--max-len-b", 40]
SCHEDULE = ["--lr", 5e-3, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 40, "--max-tokens", 600]
INT8_ROUNDING = 0.1  # nats per token on average; 0.01 was measured
WITHOUT = re.compile(
    r"(torch|functorch|fairseq|__editable__).*"
)  # nothing of these in the server's environment


@pytest.fixture(scope="module")
def served(chain, tmp_path_factory):
    """A student that has learned to end its sentences, exported and converted where the plugin is not."""
    folder = tmp_path_factory.mktemp("served")
    write_corpus(folder / "raw", train=600, others=40, lengths=(3, 6))
    tokenize_corpus(folder / "raw", folder / "pieces", chain.bert)
    preprocess(folder / "pieces", folder / "data")
    student = train_student(folder / "data", folder / "student", "--kd-weight", 0, *SCHEDULE, updates=200)
    assert cli_main(["export-student", str(student), "--output", str(folder / "student.pt")]) == 0
    for name, arguments in (("float32", []), ("int8", ["--quantization", "int8"])):
        convert(folder, folder / "student.pt", folder / name, *arguments)
    return folder


def convert(folder, checkpoint, output, *arguments):
    """``ct2-fairseq-converter`` in a folder of dictionaries alone, where importing the plugin fails."""
    dictionaries = folder / "dictionaries"
    dictionaries.mkdir(exist_ok=True)
    for language in ("de", "en"):
        name = f"dict.{language}.txt"
        (dictionaries / name).write_bytes((folder / "data" / name).read_bytes())
    command = [
        sys.executable, WITHOUT_PLUGIN, "ctranslate2.converters.fairseq", "main", "--model_path", checkpoint,
        "--data_dir", dictionaries, "--source_lang", "de", "--target_lang", "en", "--unsafe_deserialization",
        "--output_dir", output, *arguments,
    ]  # fmt: skip
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=folder, check=False,
        env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]


def pieces(folder):
    lines = (folder / "pieces" / "test.de").read_text(encoding="utf-8").split("\n")[:-1]
    return [line.split() for line in lines]


def generated(chain, folder, *arguments):
    """Standard output of fairseq-generate on the test set."""
    return run_fairseq(
        "generate", folder / "data", "--user-dir", PLUGIN, "--task", "translation_with_teacher",
        "--path", folder / "student" / "checkpoint_last.pt", *BEAM, "--cpu", "--bpe", "hf_tokenizer",
        "--hf-tokenizer", chain.bert, *arguments,
    )  # fmt: skip


def translated(folder, name, lenpen):
    translator = ctranslate2.Translator(str(folder / name), compute_type=name, intra_threads=1)
    results = translator.translate_batch(
        pieces(folder), beam_size=5, length_penalty=lenpen, max_decoding_length=40, return_scores=True
    )
    return [(" ".join(result.hypotheses[0]), result.scores[0]) for result in results]


@pytest.mark.parametrize("lenpen", [1.0, 0.6])
def test_float32_gives_the_hypotheses_of_fairseq(chain, served, lenpen):
    output = generated(chain, served, "--lenpen", lenpen)
    theirs = {int(key): (text, float(score)) for key, score, text in
              re.findall(r"^H-(\d+)\t([^\t]*)\t(.*)$", output, flags=re.M)}  # fmt: skip
    ours = translated(served, "float32", lenpen)
    same = sum(text == theirs[i][0] for i, (text, _) in enumerate(ours))
    assert same >= 36, same  # of 40; two kernels may round a near tie to different hypotheses
    assert len({text for text, _ in ours}) > 30  # it has learned something
    assert max(len(text.split()) for text, _ in ours) < 40  # none ran into the limit


def reference_scores(served, name):
    """Log-probabilities of all tokens of the references, in nats."""
    translator = ctranslate2.Translator(str(served / name), compute_type=name, intra_threads=1)
    targets = [line.split() for line in (served / "pieces" / "test.en").read_text("utf-8").split("\n")[:-1]]
    results = translator.score_batch(pieces(served), targets)
    return np.array([score for result in results for score in result.log_probs])


def test_int8_scores_references_as_float32_does(served):
    """How many hypotheses agree depends on the processor's rounding; probabilities hardly do."""
    exact, rounded = reference_scores(served, "float32"), reference_scores(served, "int8")
    assert np.abs(exact - rounded).mean() < INT8_ROUNDING
    assert exact.std() > 5 * INT8_ROUNDING  # the bound is small beside what tells tokens apart
    assert all(text for text, _ in translated(served, "int8", 1.0))
    sizes = [(served / name / "model.bin").stat().st_size for name in ("int8", "float32")]
    assert sizes[0] < 0.5 * sizes[1]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Environment of a machine with what `pip install ctranslate2 transformers` brings, and no torch or fairseq."""
    folder = tmp_path_factory.mktemp("bare")
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not WITHOUT.match(path.name) and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return os.environ | {"PYTHONPATH": f"{PLUGIN.parent}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}


def command(chain, served, *arguments):
    # -S: without the environment's own packages
    return [sys.executable, "-S", str(SERVING / "translate.py"), "--model", str(served / "int8"), "--tokenizer",
            str(chain.bert), "--threads", "1", *arguments]  # fmt: skip


def test_the_server_has_neither_torch_nor_fairseq(bare):
    for name in ("torch", "fairseq"):
        child = [sys.executable, "-S", "-c", f"import {name}"]
        assert f"No module named '{name}'" in subprocess.run(
            child, env=bare, capture_output=True, text=True, check=False
        ).stderr  # fmt: skip


def test_lines_in_lines_out(chain, served, bare):
    raw = (served / "raw" / "test.de").read_text(encoding="utf-8")
    lines = raw.split("\n")[:-1]
    result = subprocess.run(
        command(chain, served, "--lenpen", "1", "--max-len", "40", "--batch-size", "1"),
        input=f"{lines[0]}\r\n\n{lines[1]}", capture_output=True, text=True, env=bare, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    first, empty, second, end = result.stdout.split("\n")
    assert (empty, end) == ("", "")
    assert first
    assert second
    assert not re.search("##|@@", result.stdout)


def test_long_line_is_said_to_be_cut(chain, served, bare):
    result = subprocess.run(
        command(chain, served, "--max-len", "5"), input="man " * 1100 + "\n", capture_output=True, text=True,
        env=bare, check=False,
    )  # fmt: skip
    assert "a line of 1100 pieces is cut to 1023" in result.stderr
    assert result.stdout.count("\n") == 1


def test_text_is_read_as_everywhere_and_nothing_before_an_error_is_lost(chain, served, bare):
    """A byte order mark goes; of a bad byte the line is named, and what stands above it is translated."""
    student = command(chain, served, "--lenpen", "1", "--max-len", "40", "--batch-size", "1")
    plain = subprocess.run(student, input=b"the man\na man\n", capture_output=True, env=bare, check=True)
    marked = subprocess.run(
        student,
        input=b"\xef\xbb\xbfthe man\r\na man\n\xff\nmen\n",
        capture_output=True,
        env=bare,
        check=False,
    )
    assert marked.stdout == plain.stdout
    assert plain.stdout.count(b"\n") == 2
    assert marked.returncode == 1
    said = marked.stderr.decode()
    assert "case is lowered, accents are stripped" in said
    assert said.count("byte order mark") == 1
    assert "translate.py: `standard input`, line 3: text must be UTF-8, but byte 0xFF" in said


def test_another_tokenizer_is_refused(served, bare, tmp_path):
    build_tokenizer("roberta", tmp_path / "roberta")
    student = [
        sys.executable,
        "-S",
        SERVING / "translate.py",
        "--model",
        served / "int8",
        "--tokenizer",
        tmp_path / "roberta",
    ]
    result = subprocess.run(
        list(map(str, student)), input="the man\n", capture_output=True, text=True, env=bare, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert "shared_vocabulary.json` must be a piece of the teacher's tokenizer, but" in result.stderr


def refused(*arguments, env):
    """What ``translate.py`` says when it ends with an error, without a traceback."""
    result = subprocess.run(
        list(map(str, arguments)), input="the man\n", capture_output=True, text=True, env=env, check=False
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_model_that_was_not_converted_and_a_port_in_use_are_refused(chain, served, bare):
    student = command(chain, served)
    student[student.index("--model") + 1] = served / "student.pt"
    said = refused(*student, env=bare)
    assert (
        "student.pt` is no folder that ct2-fairseq-converter wrote (no model.bin); give its --output_dir"
        in said
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(*command(chain, served, "--port", str(port)), env=bare)
    assert f"cannot serve on --host 127.0.0.1 --port {port}" in said


def request(port, data, **headers):
    query = urllib.request.Request(f"http://127.0.0.1:{port}/", data=data, headers=headers, method="POST")
    with urllib.request.urlopen(query, timeout=60) as answer:
        return answer.read().decode()


def test_server_answers_line_by_line_and_refuses_what_it_cannot_read(chain, served, bare):
    with subprocess.Popen(
        command(chain, served, "--port", "0"), stderr=subprocess.PIPE, text=True, env=bare
    ) as server:
        try:
            said = ""
            while "listening" not in said:
                said = server.stderr.readline()
                assert said, "the server ended"
            port = int(said.rsplit(":", 1)[1])
            answer = request(port, b"the man\n\na man")
            assert [bool(line) for line in answer.split("\n")] == [True, False, True]
            assert request(port, b"\xef\xbb\xbfthe man\r\n\r\na man\r\n") == f"{answer}\n"
            for body, reason in (
                (b"a\n\xff", "line 2: text must be UTF-8"),
                ("a".encode("utf-16"), "but is UTF-16"),
            ):
                with pytest.raises(urllib.error.HTTPError, match="400.*send UTF-8 text") as refused:
                    request(port, body)
                assert reason in refused.value.read().decode()
            assert request(port, b"the man\n\na man") == answer  # it goes on
            with pytest.raises(urllib.error.HTTPError, match="413.*at most 1000000 bytes"):
                request(port, b"", **{"Content-Length": "1000001"})
        finally:
            server.terminate()


def test_comparison_prints_its_table(chain, served):
    arguments = [
        served / "data", "--student", served / "student.pt", "--float32", served / "float32",
        "--int8", served / "int8", "--source", served / "raw" / "test.de", "--reference", served / "raw" / "test.en",
        "--tokenizer", chain.bert, "--max-len-b", 40, "--turns", 2, "--processor-time",
    ]  # fmt: skip
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [sys.executable, SERVING / "compare.py", *map(str, arguments)], capture_output=True, text=True,
        env=environment | {"PYTHONPATH": str(PLUGIN.parent)}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    rows = re.findall(r"^\| (\w+, \w+) \| ([\d.]+) \|.* \| (\d+) of 40 \|$", result.stdout, flags=re.M)
    assert [name for name, _, _ in rows] == ["fairseq, float32", "CTranslate2, float32", "CTranslate2, int8"]
    same = [int(number) for _, _, number in rows]
    assert same[0] == 40  # with itself
    assert same[1] >= 36  # but for near ties
    assert all(float(speed) > 0 for _, speed, _ in rows)
    assert "BLEU: nrefs:1|case:mixed" in result.stdout


def test_processor_time_of_several_threads_is_refused():
    names = ("--student", "--float32", "--int8", "--source", "--reference", "--tokenizer")
    arguments = [
        "data",
        *(word for name in names for word in (name, "x")),
        "--processor-time",
        "--threads",
        "2",
    ]
    result = subprocess.run(
        [sys.executable, SERVING / "compare.py", *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(PLUGIN.parent)},
    )  # fmt: skip
    assert "--processor-time adds up threads and needs --threads 1, got 2" in result.stderr


def test_with_the_plugin_loading_stays_safe(served, tmp_path):
    command = [
        Path(sys.executable).with_name("ct2-fairseq-converter"), "--user_dir", PLUGIN, "--model_path",
        served / "student.pt", "--data_dir", served / "dictionaries", "--source_lang", "de",
        "--target_lang", "en", "--output_dir", tmp_path / "out",
    ]  # fmt: skip
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(PLUGIN.parent)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "out" / "model.bin").read_bytes() == (served / "float32" / "model.bin").read_bytes()


def test_post_norm_student_with_dictionaries_of_its_own_scores_alike(chain, tmp_path):
    """Log-probabilities of the references: they do not ask for a student that has learned something."""
    tokenize_corpus(chain.raw, tmp_path / "pieces", chain.bert)
    preprocess(tmp_path / "pieces", tmp_path / "data", "--thresholdsrc", 20)
    small = ["--encoder-embed-dim", 32, "--decoder-embed-dim", 32, "--kd-weight", 0]
    student = train_student(
        tmp_path / "data", tmp_path / "student", "--arch", "transformer_iwslt_de_en", *small, updates=20
    )
    assert cli_main(["export-student", str(student), "--output", str(tmp_path / "student.pt")]) == 0
    convert(tmp_path, tmp_path / "student.pt", tmp_path / "float32")
    assert (tmp_path / "float32" / "source_vocabulary.json").is_file()  # not shared
    output = run_fairseq(
        "generate", tmp_path / "data", "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--path", student,
        "--score-reference", "--cpu",
    )  # fmt: skip
    theirs = dict(re.findall(r"^P-(\d+)\t(.*)$", output, flags=re.M))
    translator = ctranslate2.Translator(str(tmp_path / "float32"), intra_threads=1)
    targets = [line.split() for line in (tmp_path / "pieces" / "test.en").read_text().split("\n")[:-1]]
    scores = translator.score_batch(pieces(tmp_path), targets)
    assert len(scores) == len(theirs) == 20
    for number, score in enumerate(scores):
        expected = [math.log(2) * float(value) for value in theirs[str(number)].split()]  # printed in bits
        assert score.log_probs == pytest.approx(expected, abs=1e-3)


def test_lstm_student_is_exported_but_refused_by_ctranslate2(chain, tmp_path):
    small = ["--encoder-embed-dim", 16, "--decoder-embed-dim", 16, "--encoder-hidden-size", 16,
             "--decoder-hidden-size", 16, "--decoder-out-embed-dim", 16]  # fmt: skip
    student = train_student(chain.data, tmp_path / "student", "--arch", "distilled_lstm_small", *small)
    assert cli_main(["export-student", str(student), "--output", str(tmp_path / "student.pt")]) == 0
    (tmp_path / "data").symlink_to(chain.data)
    with pytest.raises(AssertionError, match="Model 'lstm' used by architecture 'lstm' is not supported"):
        convert(tmp_path, tmp_path / "student.pt", tmp_path / "ct2")
