import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from tqdm import tqdm

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # fairseq forks; the library warns otherwise
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests need no network
# fairseq-train starts a process for each GPU that it sees, with --cpu too; tests read its log in this one
os.environ.setdefault("KD_GIVEN_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
# before torch is imported: tests fork, and a pool of OpenMP threads does not survive that
os.environ["OMP_NUM_THREADS"] = "1"
# Before the first progress bar, whoever draws it: tqdm's own lock is shared with forked processes, and one that is killed while it
# holds it stops all others for ever. Its classes inherit this one only if none has a lock of its own yet.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0  # no thread beside those that fork


def pytest_configure(config):
    """Put the preloaded commands (tests/preloaded) in the place of the installed ones; KD_PRELOADED=0 does not."""
    from tests.preloaded import commands

    if os.environ.get("KD_PRELOADED", "1") == "0":
        return
    if not hasattr(config, "workerinput"):  # all workers of a run share them
        config.preloaded_commands = commands.set_up()
        os.environ["KD_PRELOADED_COMMANDS"] = str(config.preloaded_commands)
    if not getattr(config.option, "tx", None):  # the parent of workers starts them from sys.executable
        commands.use(Path(os.environ["KD_PRELOADED_COMMANDS"]))


# Files whose tests start many processes, kill them, mutate files, draw pages, run whole chains or train until something is learned.
SLOW = (
    "benchmarks", "examples", "preloaded", "cli/test_dump_kills.py", "cli/test_dump_teacher_topk.py",
    "cli/test_export_student.py", "cli/test_main.py", "cli/test_report.py", "cli/test_vectors_kills.py",
    "functional/test_triton_kernels.py", "report/test_page.py", "storage/test_crashes.py",
    "storage/test_mutations.py", "tasks/test_registration.py", "test_augmentation_page.py", "test_chain.py",
    "test_data_shards.py", "test_distillation_helps.py", "test_distributed_rewards.py",
    "test_distributed_training.py", "test_docs.py", "test_hydra.py", "test_layer_distillation_stages.py",
    "test_left_to_right.py", "test_objectives.py", "test_one_sided.py", "test_out_of_fold.py",
    "test_paraphrase_page.py", "test_readme.py", "test_sentence_lstm_page.py", "test_sentences_page.py",
    "test_serving.py", "test_serving_encoders_page.py", "test_site.py", "test_smaller_teachers.py", "test_teachers_page.py",
    "test_text_smoothing.py", "test_tinybert_page.py", "test_wheel.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    slow = [Path(__file__).parent / name for name in SLOW]
    for item in items:
        if any(path == item.path or path in item.path.parents for path in slow):
            item.add_marker("slow")
    # slow ones first, so that no worker is left with one at the end
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_unconfigure(config):
    if hasattr(config, "preloaded_commands"):
        from tests.preloaded import commands

        commands.tear_down(config.preloaded_commands)


@dataclass(frozen=True)
class Chain:
    """A finished small chain.

    Attributes:
        bert: folder of the pre-trained model and its tokenizer.
        raw: raw text.
        data: what fairseq-preprocess wrote, and the training store.
        teacher: checkpoint.
    """

    bert: Path
    raw: Path
    data: Path
    teacher: Path


@pytest.fixture(scope="session", autouse=True)
def _registered():
    import torch

    import fairseq_bert_kd.tasks  # noqa: F401  registers all
    from tests.preloaded import quick_settings

    torch.set_num_threads(1)  # tiny models; the runner uses the cores
    # a loader that is found as garbage can no longer tell its workers to end: it waits so many seconds, and ends them
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2
    quick_settings.set_up()
    gc.freeze()  # what is loaded by now stays; collections need not look at it


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> Chain:
    """Corpus, BERT teacher of two updates and its store (k=8, 7 passes), shared and read-only."""
    from tests import tiny_chain

    folder = tmp_path_factory.mktemp("chain")
    bert = tiny_chain.build_teacher_folder("bert", folder / "bert")
    tiny_chain.write_corpus(folder / "raw")
    tiny_chain.tokenize_corpus(folder / "raw", folder / "pieces", bert)
    tiny_chain.preprocess(folder / "pieces", folder / "data")
    teacher = tiny_chain.train_teacher(folder / "data", bert, folder / "teacher")
    assert tiny_chain.dump(folder / "data", teacher) == 0
    return Chain(bert, folder / "raw", folder / "data", teacher)


@pytest.fixture(scope="session")
def one_sided(chain, tmp_path_factory):
    """A masked language model of single sentences, see `one_sided_chain`, shared and read-only."""
    from tests.one_sided_chain import build_one_sided_chain

    return build_one_sided_chain(
        chain.bert, chain.raw.parent / "pieces", tmp_path_factory.mktemp("one-sided") / "chain"
    )
