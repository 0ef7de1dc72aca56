"""Small generators in training with rewards, as several tests run them."""

from tests.tiny_chain import CPU, PLUGIN, run_fairseq

TINY = (
    "--arch",
    "distilled_transformer_small",
    "--encoder-layers",
    1,
    "--decoder-layers",
    1,
    "--dropout",
    0.1,
)
LSTM = ("--arch", "distilled_lstm_small", "--dropout", 0.1)


def train(
    data,
    save_dir,
    *arguments,
    tokenizer=None,
    updates=2,
    task="translation_with_reward",
    model=TINY,
    device=CPU,
):
    """fairseq-train with rewards; the path of the last checkpoint."""
    read = ("--kd-tokenizer", tokenizer) if tokenizer else ()
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", task, *model, "--criterion", "policy_gradient", *read,
        "--label-smoothing", 0.1, "--optimizer", "adam", "--lr", 1e-3, "--batch-size", 16, "--max-update", updates,
        "--save-dir", save_dir, "--no-epoch-checkpoints", "--num-workers", 0, "--log-format", "json", "--log-interval", 1,
        "--rl-max-start-ppl", 1e9, *device, *arguments,
    )  # fmt: skip
    return save_dir / "checkpoint_last.pt"
