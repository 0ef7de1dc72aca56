"""The workflow behind the examples: steps that are killed, fail or run twice; settings that are wrong; other kinds of tasks."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples import run as program
from examples.workflow import options, translation
from examples.workflow.engine import Step, Workflow, visible_gpus
from examples.workflow.settings import describe, load

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def notes(out):
    return [json.loads(line) for line in (out / "steps.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- steps ---------------------------------------------------------------------------------------------------
def test_steps_run_once_in_order_and_are_noted(out, capsys):
    steps = [
        Step("first", "echo one > made"),
        Step(
            "students/a.1", "cat made > seen", after=["first"], files={"students/a.1/run.json": {"seed": 1}}
        ),
        Step("report", "echo reported >> report", after=["students/a.1"], always=True),
    ]
    for _ in range(2):
        assert Workflow(out, steps, jobs=1).run() == 0
    assert (out / "seen").read_text() == "one\n"
    assert json.loads((out / "students/a.1/run.json").read_text()) == {"seed": 1}
    assert [note["step"] for note in notes(out)] == ["first", "students/a.1", "report", "report"]
    assert (out / "report").read_text() == "reported\n" * 2
    assert "== first: done before\n" in capsys.readouterr().out


def test_a_record_follows_the_settings_while_the_command_stays(out):
    """A row's label or group may change after its training; what another command did keeps its record."""

    def run(command, label):
        Workflow(out, [Step("students/a.1", command, files={"run.json": {"label": label}})], jobs=1).run()
        return json.loads((out / "run.json").read_text())["label"]

    assert [run("true", "old"), run("true", "new"), run("echo", "other")] == ["old", "new", "new"]


def test_records_that_a_full_disk_cut_short_stop_nothing(out):
    steps = [Step("first", "echo x >> made"), Step("last", "cat made > seen", after=["first"])]
    Workflow(out, steps[:1], jobs=1).run()
    (out / "doit.json").write_text('{"first": {"_values_:')
    assert Workflow(out, steps, jobs=1).run() == 0
    assert (out / "made").read_text() == (out / "seen").read_text() == "x\n"


def test_a_step_that_was_done_otherwise_is_kept_and_says_so(out, capsys):
    Workflow(out, [Step("first", "echo one > made")], jobs=1).run()
    Workflow(out, [Step("first", "echo two > made")], jobs=1).run()
    assert (out / "made").read_text() == "one\n"
    said = capsys.readouterr().out
    assert "done before by another command, whose result is kept (to run it anew, remove" in said
    assert "echo one > made" in said.split("done before")[1]


def test_work_that_another_command_began_is_not_gone_on_with(out, capsys):
    """A training that was killed at one learning rate would otherwise end at another."""
    failing = Step("teacher", "echo x >> work; test -e repaired", resumes=True)
    assert Workflow(out, [failing], jobs=1).run() != 0
    (out / "repaired").touch()
    other = Step("teacher", "echo y >> work", resumes=True)
    assert Workflow(out, [other], jobs=1).run() != 0
    said = capsys.readouterr().out
    assert (
        f"teacher was begun by another command, and would go on from its work:\n   {failing.command}" in said
    )
    assert str(out / "begun" / "teacher") in said
    spaced = Step("teacher", failing.command.replace("; ", " ;  ").replace(" ;  ", ";   "), resumes=True)
    assert Workflow(out, [spaced], jobs=1).run() == 0  # spaces are no other command
    assert (out / "work").read_text() == "x\nx\n"
    (out / "begun" / "teacher").unlink()
    (out / "done" / "teacher").unlink()
    assert Workflow(out, [other], jobs=1).run() == 0


def test_a_training_without_a_checkpoint_may_begin_anew_with_other_settings(out):
    """Such as smaller batches after it ran out of memory at the first update."""

    def train(command):
        return Workflow(out, [Step("teacher", command, resumes=True, checkpoints="model")], jobs=1).run()

    assert train("echo large batches; false") != 0
    assert train("echo small batches; mkdir model; touch model/checkpoint_last.pt; false") != 0
    assert (out / "logs/teacher.log").read_text() == "small batches\n"
    assert train("echo other batches; true") != 0
    assert not (out / "done/teacher").exists()


def test_what_does_not_need_a_failed_step_is_done_and_the_same_command_goes_on(out, capsys):
    steps = [
        Step("first", "true"),
        Step("bad", "echo reason; test -e repaired", after=["first"], parallel=True),
        Step("good", "sleep 1; echo x >> good", after=["first"], parallel=True),
        Step("last", "echo x >> last", after=["bad", "good"]),
    ]
    assert Workflow(out, steps, jobs=2).run() != 0
    said = capsys.readouterr().out
    assert "== bad failed (exit status 1); the end of" in said
    assert "reason\nWhat is done stays done. Correct the cause and give the same command again." in said
    assert (out / "good").exists()
    assert not (out / "last").exists()
    (out / "repaired").touch()
    assert Workflow(out, steps, jobs=2).run() == 0
    assert (out / "good").read_text() == (out / "last").read_text() == "x\n"


def test_steps_run_side_by_side_with_their_share_of_the_cores(out, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    # each waits for the other, so one by one they would not end
    meet = "touch {0}; for i in $(seq 600); do test -e {1} && break; sleep 0.1; done; test -e {1}; echo $OMP_NUM_THREADS > {0}"
    steps = [
        Step("wide", "echo $OMP_NUM_THREADS > wide"),
        Step("a", meet.format("a", "b"), after=["wide"], parallel=True),
        Step("b", meet.format("b", "a"), after=["wide"], parallel=True),
    ]
    assert Workflow(out, steps, jobs=2).run() == 0
    assert [(out / name).read_text() for name in ("wide", "a", "b")] == ["6\n", "3\n", "3\n"]


def test_the_time_of_a_step_that_goes_on_has_that_of_its_first_start(out):
    """It began at 1000 and wrote its last line at 1500; since then nothing ran."""
    for folder in ("logs", "started", "begun"):
        (out / folder).mkdir()
    step = Step("teacher", "echo again", resumes=True)
    (out / "begun/teacher").write_text(step.command)
    (out / "started/teacher").write_text("1000.0")
    (out / "logs/teacher.log").write_text("first\n")
    os.utime(out / "logs/teacher.log", (1500, 1500))
    assert Workflow(out, [step], jobs=1).run() == 0
    [note] = notes(out)
    assert 500 <= note["seconds"] < 1000


@pytest.mark.parametrize(
    ("gpus", "expected"), [(1, ["2", "2", "5"]), (2, ["2,5", "2,5", "7,2"]), (3, ["2,5,7"] * 3)]
)
def test_steps_see_as_many_gpus_as_they_are_to_have(out, monkeypatch, gpus, expected):
    """Training takes all that it sees; steps side by side get others, as far as there are."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    meet = "touch {0}; for i in $(seq 600); do test -e {1} && break; sleep 0.1; done; echo $CUDA_VISIBLE_DEVICES > {0}"
    steps = [
        Step("alone", "echo $CUDA_VISIBLE_DEVICES > alone"),
        Step("a", meet.format("a", "b"), after=["alone"], parallel=True),
        Step("b", meet.format("b", "a"), after=["alone"], parallel=True),
    ]
    assert Workflow(out, steps, jobs=2, gpus=gpus).run() == 0
    alone, *both = ((out / name).read_text().strip() for name in ("alone", "a", "b"))
    assert [alone, *sorted(both)] == expected


def test_more_gpus_than_there_are_are_refused_and_none_are_no_matter(out, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    with pytest.raises(
        ValueError, match=r"gpus=4, and the GPUs that are visible here are 2, 5, 7; give gpus=1 to 3"
    ):
        Workflow(out, [], jobs=1, gpus=4).check()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Workflow(out, [Step("first", "echo [$CUDA_VISIBLE_DEVICES] > made")], jobs=1, gpus=4).run() == 0
    assert (out / "made").read_text() == "[]\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("printf '0\\n1\\n'", ["0", "1"]), ("echo No devices were found", []), ("exit 9", []), (None, [])],
)
def test_gpus_are_counted_by_nvidias_program(tmp_path, monkeypatch, answer, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if answer is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == expected


def test_a_folder_may_have_any_name(tmp_path):
    out = tmp_path / 'Bob\'s "two words" $HOME'
    out.mkdir()
    assert Workflow(out, [Step("first", "echo said; echo one > made")], jobs=1).run() == 0
    assert (out / "logs/first.log").read_text() == "said\n"


def test_steps_find_the_programs_of_the_python_that_runs_them(out, monkeypatch):
    """Its environment need not be activated."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    step = Step("first", "python -c 'import sys; print(sys.prefix)'; command -v fairseq-bert-kd")
    assert Workflow(out, [step], jobs=1).run() == 0
    prefix, command = (out / "logs/first.log").read_text().splitlines()
    assert prefix == sys.prefix
    assert command == str(Path(sys.executable).parent / "fairseq-bert-kd")


SCRIPT = """
import sys
from pathlib import Path
from examples.workflow.engine import Step, Workflow

wait = "for i in $(seq 600); do test -e go-on && break; sleep 0.1; done"
command = f"echo start; test -e begun-once || {{ touch begun-once; {wait}; echo; }}; echo end"
steps = [Step("data", "echo x >> data"), Step("teacher", command, after=["data"], resumes=True)]
sys.exit(Workflow(Path(sys.argv[1]), steps, jobs=1).run())
"""


def test_a_start_that_was_killed_goes_on_where_it_was(out):
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, "-c", SCRIPT, str(out)]
    with subprocess.Popen(command, env=environment) as child:
        deadline = time.monotonic() + 60
        while not (out / "begun-once").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
    with pytest.raises(BlockingIOError, match="is in use by another start, or by a step that outlived one"):
        Workflow(out, [], jobs=1).run()  # its step still waits
    (out / "go-on").touch()
    for _ in range(60):
        again = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        if "BlockingIOError" not in again.stderr:
            break
        time.sleep(0.5)
    assert again.returncode == 0, again.stderr
    assert (out / "logs/teacher.log").read_text().splitlines() == [
        "start",
        "",
        "end",
        "start",
        "end",
    ]  # the log goes on
    assert (out / "data").read_text() == "x\n"  # what was done is not repeated
    assert [note["step"] for note in notes(out)] == ["data", "teacher"]


# ---- settings ------------------------------------------------------------------------------------------------
@pytest.fixture
def task(tmp_path):
    """A settings file of one's own, with a language pair that no example has."""
    for split in ("train", "valid", "test"):
        for language in ("nl", "fr"):
            (tmp_path / "text").mkdir(exist_ok=True)
            (tmp_path / "text" / f"{split}.{language}").write_text("a b\n" * 4, encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"task: mine\nsource: nl\ntarget: fr\ndata: {tmp_path}/text\nout: {tmp_path}/out\nteacher: bert\n"
    )
    return file


def test_settings_come_from_kind_size_file_and_command_line(task):
    settings, kind = load(task, ["size=paper", "teacher_training.updates=7", "topk", "beam"])
    assert kind is translation
    assert settings.rows == ["topk", "beam"]
    assert (settings.student_training.updates, settings.teacher_training.updates) == (100000, 7)
    assert settings.kd == {"weight": 0.5, "temperature": 10, "topk": 8, "objective": "paper"}  # the paper's
    assert load(task, [])[0].kd["temperature"] == 1
    assert load(task, [])[0].called == task.name


def test_home_is_what_it_is_in_a_shell(task, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings, _ = load(task, ["out=~/out", "data=~/text", "teacher=~/bert"])
    assert [settings.out, settings.data, settings.teacher] == [
        f"{tmp_path}/{name}" for name in ("out", "text", "bert")
    ]


def test_tables_are_read_where_there_are_no_files_of_two_languages(task, tmp_path, monkeypatch, capsys):
    tables = tmp_path / "tables"
    tables.mkdir()
    for split in ("train", "valid"):
        (tables / f"{split}.tsv").write_text("a b\tc\n", encoding="utf-8")
    assert program.main([str(task), f"data={tables}"]) == 2
    assert "must hold test.tsv or test.tsv.gz; it has train.tsv, valid.tsv" in capsys.readouterr().err
    (tables / "test.tsv").write_text("d\te f\n", encoding="utf-8")
    settings, kind = load(task, [f"data={tables}"])
    prepare = kind.steps(settings)[0].command
    subprocess.run(["bash", "-ec", prepare], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "text" / "test.fr").read_text() == "e f\n"
    assert (tmp_path / "text" / "train.nl").read_text() == "a b\n"


def test_a_file_s_own_numbers_stand_over_those_of_a_size(task):
    """And those that it gives for the size over both."""
    own = "student_training: {updates: 77, lr: 1e-9}\nsizes: {paper: {student_training: {updates: 5}}}\n"
    task.write_text(task.read_text() + own)
    for size, updates in (("laptop", 77), ("paper", 5)):
        training = load(task, [f"size={size}"])[0].student_training
        assert (training.updates, float(training.lr)) == (updates, 1e-9)


def test_the_settings_in_the_readme_are_scored_with_case(tmp_path):
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(re.search(r"```yaml\n(.*?)```", readme, flags=re.S)[1], encoding="utf-8")
    settings, kind = load(file, [])
    [score] = [step.command for step in kind.steps(settings) if step.name == "score"]
    assert "--lowercase" not in score
    settings, kind = load(file, ["lowercase=true"])
    [score] = [step.command for step in kind.steps(settings) if step.name == "score"]
    assert "--lowercase" in score


@pytest.mark.parametrize("name", ["quickstart", "examples/text_smoothing/sst2.yaml"])
def test_results_name_settings_as_the_command_line_does(name):
    file = name if name == "quickstart" else Path(__file__).parents[2] / name
    assert load(file, ["data=text", "out=out", "teacher=bert"])[0].called == name


@pytest.mark.parametrize("name", ["multi30k", "ted_de-en", "tatoeba_de-en"])
def test_another_pair_is_two_names(name):
    given = ["data=text", "out=out", "teacher=bert", "seeds=[1]"]
    for names, languages, shown in (
        ([], "de-en", " German–English, "),
        (["source=fr", "target=nl"], "fr-nl", " French–Dutch, "),
        (["source=xx", "target=en"], "xx-en", " xx–English, "),
    ):
        settings, kind = load(name, [*given, *names])
        assert load(name, [*given, "size=seconds"])[0].pairs == "200"  # whatever the task's own number is
        assert shown in settings.title
        commands = "\n".join(step.command for step in kind.steps(settings))
        source, target = languages.split("-")
        assert f"--languages {source} {target} " in commands
        assert f"--source-lang {source} --target-lang {target} " in commands
        assert f"--reference text/test.{target} " in commands
        for code in {"de", "en"} - {source, target}:
            assert not re.search(rf"[.{{,]{code}\b", commands)  # no file of the pair that it was made for


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["colour=red"], "Key 'colour' not in 'Settings'"),
        (["paris=5"], "Key 'paris' not in 'Settings' full_key: paris. Is `pairs` meant?"),
        (["seeds=1"], "A list is written in brackets, such as seeds=[A,B]."),
        (["student_training.updates=many"], "Value 'many' of type 'str' could not be converted to Integer"),
        (["size=huge"], "size=huge does not exist. Give one of: laptop, gpu, seconds, paper"),
        (["kind=juggling"], "kind=juggling does not exist. Give one of: translation"),
        (
            ["everything"],
            "no system and no group is called 'everything'. Give `all`, a group (dictionary, folds, main,",
        ),
        (["source=xx"], "text must hold train.xx or train.xx.gz; it has test.fr, test.nl, train.fr"),
        (
            ["data=nowhere"],
            "nowhere must hold train.nl or train.nl.gz; it has no files. Correct data, source or",
        ),
        (
            ["source=no"],
            "`source` is a language's code, and YAML reads `no` as false: write '\"no\"', in quotes",
        ),
        (["jobs=0"], "jobs=0 is the number of steps side by side; give 1 or more"),
        (["seeds=[]"], "rows=[main] with seeds=[] trains nothing; give a row, such as main, and a seed"),
        (["baseline=plan"], "baseline=plan: no system is called so. Give one of: plain, distilled,"),
        (["systems.distilled.store=defualt"], "systems.distilled.store=defualt: no store is called so. Give"),
        (
            ["stores.default.teacher=tutor"],
            "stores.default.teacher=tutor: no teacher is called so. Give one of: tea",
        ),
        (
            ["systems.beam.after=passes-2", "systems.passes-2.after=beam"],
            "rows begin from each other (passes-2 from beam from passes-2)",
        ),
        (
            ["systems.distilled.share=0.0001"],
            "systems.distilled would train for 0 updates (updates=None, share=0.0001 of 2000); give 1 or more",
        ),
        (
            ["systems.distilled.updates=0"],
            "systems.distilled would train for 0 updates (updates=0, share=1 of",
        ),
        (["test_sets=[flickr]"], "test_sets=[flickr] must hold `test`, which is scored"),
        (["test_sets=[test,valid]"], "test_sets=[test, valid] must hold each set once"),
        (["target=nl"], "source and target are both `nl`, and each side has files of that ending; give two"),
        (
            ["commands.dump=fairseq-bert-kd dump {dta}"],
            "commands.dump holds {dta}, which is not filled here; names that are: {teacher}, {data}, {named}, {options}",
        ),
        (
            ["kd.temprature=2"],
            "step students/distilled.1 would end with `fairseq-train: error: unrecognized arguments: --kd-temprature 2`",
        ),
        (["kd.objective=papper"], "argument --kd-objective: invalid choice: 'papper' (choose from"),
        (
            ["student.arch=distilled_transformer_smal"],
            "argument --arch/-a: invalid choice: 'distilled_transformer_smal' (most alike: distilled_transformer_small, ",
        ),
        (
            ["teacher_training.options=--cmlm-mask-prob many"],
            "step teacher would end with `fairseq-train: error: argu",
        ),
        (
            ["stores.default.options=--pases 7"],
            "step dump would end with `fairseq-bert-kd dump: error: unrecognized",
        ),
        (
            ["decode=--beem 5"],
            "step outputs/plain.1.valid would end with `fairseq-generate: error: unrecognized",
        ),
        (["metric=blue"], "`blue` is not a metric; the metrics are accuracy, bleu"),
        (
            ["metric=accuracy"],
            "metric=accuracy does not compare texts; give one of: bleu, chrf2, length_ratio",
        ),
        (["bleu_tokenize=14a"], "sacreBLEU has no tokenizer `14a`; it has 13a"),
        (
            ["teacher=no/such-model"],
            "cannot load a tokenizer from `no/such-model`: it is neither a folder that holds one",
        ),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(task, given, reason, capsys):
    assert program.main([str(task), *given]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) == 1
    assert not (task.parent / "out" / "logs").exists()


def test_braces_that_are_no_places_stay_as_they_are(task):
    """fairseq's options take JSON, and bash and awk have braces too."""
    options = 'student_training: {options: "--eval-bleu-args \'{\\"beam\\": 4, \\"a\\": {}}\'"}\n'
    awk = "commands: {score: \"awk '{ print $1 }' {systems}\"}\n"
    task.write_text(task.read_text(encoding="utf-8") + options + awk, encoding="utf-8")
    settings, kind = load(task, ["seeds=[1]", "plain"])
    steps = {step.name: step.command for step in kind.steps(settings)}
    assert """--eval-bleu-args '{"beam": 4, "a": {}}'""" in steps["students/plain.1"]
    assert steps["score"] == "awk '{ print $1 }' plain=outputs/plain.1.test.out"
    assert "pieces/{train,valid,test}.{nl,fr}" in steps["tokenize"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("task: [", "while parsing a flow"),
        ("just words", "Key 'just words' not in 'Settings'"),
        (
            "task: x\nout: o\nteacher: t\nsource: a\ntitle: ${nothing}\n",
            "Interpolation key 'nothing' not found",
        ),
        ("task: x\nout: o\nteacher: t\n", "mandatory value: source"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, reason, capsys):
    (tmp_path / "task.yaml").write_text(text)
    assert program.main([str(tmp_path / "task.yaml"), "--dry-run"]) == 2
    assert reason in (said := capsys.readouterr().err)
    assert "task.yaml" in said


def test_a_file_that_is_not_there_and_no_file(capsys):
    assert program.main(["no-such-example"]) == 2
    said = capsys.readouterr().err
    assert (
        "no example is called `no-such-example`. Give a file of settings, such as mine.yaml, or one of: acl_"
        in said
    )
    assert program.main(["mine.yml"]) == 2
    assert "there is no file of settings `mine.yml`" in capsys.readouterr().err
    assert program.main([]) == 2
    assert "SETTINGS [ROW...] [KEY=VALUE...]" in capsys.readouterr().out
    assert program.main(["--help"]) == 0


def test_an_example_is_a_name_or_a_folder(tmp_path, monkeypatch):
    given = ["data=d", "out=o", "teacher=t"]
    folder = Path(program.__file__).parent / "multi30k"
    assert load(folder, given)[0].task == load("multi30k", given)[0].task == "multi30k"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "multi30k").mkdir()  # a folder of data, say
    assert load("multi30k", given)[0].task == "multi30k"


def test_what_the_report_needs_is_looked_for_before_the_first_step(task, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert program.main([str(task)]) == 2
    said = capsys.readouterr().err
    assert "a report needs matplotlib" in said
    assert "pip install 'fairseq-bert-kd[report]'" in said


def test_a_folder_keeps_its_experiment(task, monkeypatch, capsys):
    monkeypatch.setattr(translation, "HfTokenizer", lambda name: None)
    monkeypatch.setattr(
        "fairseq_bert_kd.modules.pretrained_encoder.masked_lm_with_random_weights", lambda name: None
    )
    monkeypatch.setattr(Workflow, "run", lambda self: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert program.main([str(task)]) == 0
    record = json.loads((task.parent / "out" / "experiment.json").read_text())
    assert (record["source_lang"], record["target_lang"], record["teacher"]) == ("nl", "fr", "bert")
    assert "normalise_like" not in record  # as in folders from before there was the setting
    assert program.main([str(task), "normalise_like=${teacher}"]) == 2
    assert "differs in normalise_like" in capsys.readouterr().err
    assert program.main([str(task), "precision=--autocast bf16"]) == 2
    assert "differs in precision" in capsys.readouterr().err
    assert program.main([str(task), "gpus=4"]) == 2
    assert "differs in gpus" in capsys.readouterr().err
    assert program.main([str(task), "title=Another"]) == 2
    assert "holds 'mine' and differs in title. Give another folder: out=..." in capsys.readouterr().err


def test_precision_is_that_of_all_trainings(task, tmp_path):
    given = [
        "data=text",
        "out=out",
        "teacher=/of/mine",
        "seeds=[1]",
        "precision=--autocast bf16",
        "own.file=/of/mine",
    ]
    settings, kind = load(str(task), given)
    trainings = [step.command for step in kind.steps(settings) if "fairseq-train" in step.command]
    assert len(trainings) == 3  # teacher, plain and distilled
    assert all(" --autocast bf16 " in command for command in trainings)
    settings.out = str(tmp_path)
    describe(settings, {})
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["precision"] == "--autocast bf16"
    assert (
        "size=laptop 'seeds=[1]' 'precision=--autocast bf16' own.file=... data=DATA_DIR" in record["command"]
    )
    assert "/of/mine" not in record["command"]
    del record["precision"]  # a folder from before there was the setting had none
    (tmp_path / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="differs in precision"):
        describe(settings, {})
    settings.precision = ""
    describe(settings, {})


def test_the_report_waits_for_the_scores(task):
    """It shows them, and some are times that it would disturb."""
    given = ["data=text", "out=out", "teacher=bert", "seeds=[1]", "after_students=[true, false]"]
    settings, kind = load(str(task), given)
    steps = {step.name: step for step in kind.steps(settings)}
    names = ["scores-1", "scores-2", "score", "report"]
    for before, name in itertools.pairwise(names):
        assert before in steps[name].after


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("a --x '(0.9,0.98)' | b > c && (d;e)", [["a", "--x", "(0.9,0.98)"], ["b"], ["c"], ["d"], ["e"]]),
        (
            f'a --user-dir "{options.USER_DIR}" --j \'{{"k": 1}}\'',
            [["a", "--user-dir", options.USER_DIR, "--j", '{"k": 1}']],
        ),
        ("", []),
        ("a 'open", []),
    ],
)
def test_programs_of_a_command(command, expected):
    assert list(options.programs(command)) == expected


def test_options_that_cannot_be_known_yet_are_not_judged():
    assert "unrecognized" in options.refusal(
        "fairseq-bert-kd", ["dump", "data", "--path", "x", "--wrong", "1"]
    )
    assert not options.refusal("fairseq-bert-kd", ["dump", "data", "--path", "$HOME/x", "--wrong", "1"])
    assert not options.refusal("fairseq-train", ["data", "--user-dir", "/of/mine", "--wrong", "1"])
    assert not options.refusal("echo", ["--wrong"])


def test_options_of_what_is_done_are_not_judged_again(task, monkeypatch, capsys):
    """A folder of an earlier commit may have been made with options that are no more."""
    given = [str(task), "kd.temprature=2", "seeds=[1]", "teacher=no/such"]
    (task.parent / "out/done/students").mkdir(parents=True)
    (task.parent / "out/done/students/distilled.1").touch()
    assert program.main(given) == 2
    assert "cannot load a tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "why"), [("/no/such/folder", "does not exist"), ("folder", "must be a full path")]
)
def test_what_steps_will_read_is_looked_for_first(task, capsys, path, why):
    assert program.main([str(task), f"needs=[{path}]"]) == 2
    assert f"`{path}` {why}; mine reads it" in capsys.readouterr().err
    assert not (task.parent / "out").exists()


# ---- rows ----------------------------------------------------------------------------------------------------
def names(task, *given):
    settings, kind = load(task, ["seeds=[1]", *given])
    return [step.name for step in kind.steps(settings)]


def test_a_row_brings_what_it_needs_and_nothing_twice(task):
    main = names(task)
    assert main == [
        "text", "tokenize", "preprocess", "teacher", "dump",
        *(f"{kind}.1{subset}" for system in ("plain", "distilled")
          for kind, subset in ((f"students/{system}", ""), (f"outputs/{system}", ".valid"), (f"outputs/{system}", ".test"))),
        "score", "report",
    ]  # fmt: skip
    assert set(names(task, "plain")) == {*main} - {"teacher", "dump"} - {
        name for name in main if "distilled" in name
    }
    more = names(task, "topk-1", "distilled-separate")
    assert more.count("teacher") == more.count("students/plain.1") == 1
    assert {"preprocess-separate", "teacher-separate", "dump-separate", "students/plain-separate.1"} < set(
        more
    )
    assert len(names(task, "all")) == len(set(names(task, "all")))


def test_a_store_out_of_fold_has_a_teacher_for_each_fold(task):
    settings, kind = load(task, ["seeds=[1]", "folds-2-w0.3", "plain-rdrop"])
    steps = {step.name: step for step in kind.steps(settings)}
    folds = [name for number in (1, 2) for name in (f"teacher-fold-{number}-of-2", f"dump-folds-2-{number}")]
    made = [name for name in steps if "fold" in name and "/" not in name]
    assert made == [*folds, "merge-folds-2"]
    assert "teacher" not in steps  # nothing needs one of all pairs
    for name in folds:
        assert steps[name].command.endswith(f"--teacher-fold {'1/2' if '-1' in name else '2/2'}")
    assert "--path teacher-fold-2-of-2/checkpoint_best.pt --name folds-2" in steps["dump-folds-2-2"].command
    assert "data-bin/train.nl-fr.fr.folds-2.topk.fold-*-of-2" in steps["merge-folds-2"].command
    assert "rm -f teacher-fold-*-of-2/checkpoint_last.pt" in steps["merge-folds-2"].command
    student = steps["students/folds-2-w0.3.1"]
    assert "--kd-stores folds-2 " in student.command
    record = student.files["students/folds-2-w0.3.1/run.json"]
    assert (record["store"], record["teacher"]) == ("folds-2", None)  # the store's header names all teachers
    assert "--kd-weight 0 --rdrop-weight 5" in steps["students/plain-rdrop.1"].command


def test_every_step_comes_after_what_it_needs(task):
    settings, kind = load(task, ["all"])
    seen = set()
    for step in kind.steps(settings):
        assert set(step.after) <= seen
        seen.add(step.name)
    beam = {step.name: step for step in kind.steps(settings)}
    assert "outputs/plain.1.test" in beam["beam"].after or "students/plain.1" in beam["beam"].after
    assert "preprocess-beam" in beam["students/beam.2"].after


def test_the_beam_is_made_once_for_whatever_seed_comes_first(task):
    given = ["plain", "beam", "systems.beam.seeds=[3,2]"]
    settings, kind = load(task, given)
    steps = list(kind.steps(settings))
    made = [step.name for step in steps]
    assert made.count("beam") == made.count("preprocess-beam") == 1
    assert made.index("students/plain.1") < made.index("beam") < made.index("students/beam.2")
    assert all(set(step.after) <= set(made) for step in steps)


def test_a_row_begins_from_a_run_of_the_same_seed():
    given = ["data=text", "out=out", "teacher=bert", "kl"]
    settings, kind = load("paraphrase", [*given, "seeds=[2,3]"])
    with pytest.raises(
        ValueError,
        match="row `kl` runs with seed 1 and begins from `likelihood` of the same seed, which runs with 2, 3. Give seeds",
    ):
        kind.steps(settings)
    settings, kind = load("paraphrase", [*given, "seeds=[2,1]"])
    steps = {step.name: step for step in kind.steps(settings)}
    assert set(steps["students/kl.1"].after) <= steps.keys()


def test_a_student_waits_for_its_own_store_only(task):
    given = ["plain", "distilled", "small-teacher", "folds-2-w0.3", "seeds=[1]"]
    settings, kind = load(task, given)
    steps = {step.name: step for step in kind.steps(settings)}
    assert steps["students/plain.1"].after == ("preprocess",)
    assert steps["students/distilled.1"].after == ("preprocess", "dump")
    assert steps["students/small-teacher.1"].after == ("preprocess", "dump-small")
    assert steps["students/folds-2-w0.3.1"].after == ("preprocess", "merge-folds-2")
    assert list(steps["merge-folds-2"].after) == ["dump-folds-2-1", "dump-folds-2-2"]
    for teacher, dump in {"teacher": "dump", "teacher-fold-2-of-2": "dump-folds-2-2"}.items():
        assert steps[teacher].after == ("preprocess",)
        assert steps[teacher].parallel
        assert steps[dump].after == (teacher,)
        assert steps[dump].parallel


def test_students_of_a_row_differ_in_its_options_alone(task):
    settings, kind = load(task, ["topk-1", "seeds=[1]"])
    commands = {step.name: step.command.split() for step in kind.steps(settings)}
    plain, other = (
        [word for word in commands[f"students/{name}.1"] if name not in word] for name in ("plain", "topk-1")
    )
    assert [word for word in other if word not in plain] == [
        "--kd-stores", "default", "0.5", "--kd-temperature", "--kd-topk", "--kd-objective", "paper",
    ]  # fmt: skip
    assert other[(place := other.index("--kd-topk")) : place + 2] == ["--kd-topk", "1"]


def test_a_dry_run_shows_commands_and_writes_nothing(task, capsys):
    assert program.main([str(task), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("$ fairseq-train ") == 7
    assert not (task.parent / "out").exists()


# ---- another kind of task ------------------------------------------------------------------------------------
def test_a_kind_brings_its_own_steps_and_settings(tmp_path, monkeypatch):
    """A classification in two files beside the engine, as one would add it."""
    import examples.workflow
    from examples.workflow import settings as module

    package = tmp_path / "kinds"
    package.mkdir()
    (package / "labels.yaml").write_text("classes: 2\nsizes: {laptop: {}}\n")
    (package / "labels.py").write_text(
        "from dataclasses import dataclass\n"
        "from examples.workflow.engine import Step\n"
        "from examples.workflow.settings import Common\n\n"
        "@dataclass\nclass Settings(Common):\n    classes: int = 0\n\n"
        "def check(settings): pass\n"
        "def steps(settings): return [Step('train', f'echo {settings.classes} > {settings.task}')]\n"
    )
    monkeypatch.setattr(module, "HERE", package)
    monkeypatch.setattr(examples.workflow, "__path__", [*examples.workflow.__path__, str(package)])
    (tmp_path / "task.yaml").write_text(f"task: rte\nkind: labels\nteacher: bert\nout: {tmp_path}/out\n")
    assert program.main([str(tmp_path / "task.yaml"), "classes=3"]) == 0
    assert (tmp_path / "out" / "rte").read_text() == "3\n"
