"""TinyBERT's students by name: sizes of ``hf_encoder`` (Jiao et al. 2020, and ours)."""

from fairseq.models import register_model_architecture


def _sizes(args, layers, hidden, heads, ffn):
    """Fill in the sizes that the user did not give; name the architecture itself, so that checkpoints load by it."""
    sizes = {"encoder_layers": layers, "encoder_hidden": hidden, "encoder_heads": heads, "encoder_ffn": ffn}
    for name, value in sizes.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    args.arch = "hf_encoder"


@register_model_architecture("hf_encoder", "tinybert_4x312")
def tinybert_4x312(args):
    """TinyBERT4 of the paper: 4 layers of 312, 12 heads, feed-forward 1200."""
    _sizes(args, layers=4, hidden=312, heads=12, ffn=1200)


@register_model_architecture("hf_encoder", "tinybert_6x768")
def tinybert_6x768(args):
    """TinyBERT6 of the paper: 6 layers of 768, 12 heads, feed-forward 3072."""
    _sizes(args, layers=6, hidden=768, heads=12, ffn=3072)


@register_model_architecture("hf_encoder", "tinybert_3x192")
def tinybert_3x192(args):
    """A student for two CPU cores (ours): 3 layers of 192, 12 heads, feed-forward 768."""
    _sizes(args, layers=3, hidden=192, heads=12, ffn=768)
