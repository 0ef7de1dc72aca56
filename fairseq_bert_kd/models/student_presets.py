"""Named students. Each is a set of defaults for one of fairseq's own models.

A preset puts the stock architecture's name into the checkpoint, with every size spelled out, so that
fairseq without this plugin can load and decode the student.
"""

from fairseq.models import register_model_architecture
from fairseq.models.lstm import base_architecture as lstm_defaults
from fairseq.models.transformer.transformer_legacy import base_architecture as transformer_defaults


def _preset(args, model, finish, **defaults):
    """Fill in what the user did not give, let fairseq fill in the rest, name the stock architecture."""
    for name, value in defaults.items():
        # a switch cannot be given as False, so the preset's True holds
        if value is True or getattr(args, name, None) is None:
            setattr(args, name, value)
    finish(args)
    args.arch = model


def _transformer(args, dim, ffn_dim, heads, layers, dropout):
    _preset(
        args,
        "transformer",
        transformer_defaults,
        encoder_embed_dim=dim,
        decoder_embed_dim=dim,
        encoder_ffn_embed_dim=ffn_dim,
        decoder_ffn_embed_dim=ffn_dim,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_layers=layers,
        decoder_layers=layers,
        dropout=dropout,
        encoder_normalize_before=True,
        decoder_normalize_before=True,
        share_all_embeddings=True,
    )


@register_model_architecture("transformer", "distilled_transformer_base")
def distilled_transformer_base(args):
    """The paper's student: pre-norm Transformer-base, one embedding for source, target and output.

    6+6 layers, 512, 8 heads, feed-forward 2048; dropout 0.3 as for IWSLT14 De-En (0.1 for WMT14 and
    Gigaword). Shared embeddings need ``fairseq-preprocess --joined-dictionary``.
    """
    _transformer(args, dim=512, ffn_dim=2048, heads=8, layers=6, dropout=0.3)


@register_model_architecture("transformer", "distilled_transformer_small")
def distilled_transformer_small(args):
    """Student for two CPU cores (our choice): 3+3 layers, 128, 4 heads, feed-forward 512, dropout 0.2."""
    _transformer(args, dim=128, ffn_dim=512, heads=4, layers=3, dropout=0.2)


@register_model_architecture("lstm", "distilled_lstm")
def distilled_lstm(args):
    """LSTM with attention (the paper does not give its sizes, these are ours): 2+2 layers, 512, dropout 0.3."""
    _lstm(args, dim=512, layers=2, dropout=0.3)


@register_model_architecture("lstm", "distilled_lstm_small")
def distilled_lstm_small(args):
    """LSTM for two CPU cores (our choice): 1+1 layers, 256, dropout 0.2."""
    _lstm(args, dim=256, layers=1, dropout=0.2)


def _lstm(args, dim, layers, dropout):
    _preset(
        args,
        "lstm",
        lstm_defaults,
        encoder_embed_dim=dim,
        encoder_hidden_size=dim,
        encoder_layers=layers,
        encoder_bidirectional=True,
        decoder_embed_dim=dim,
        decoder_hidden_size=dim,
        decoder_out_embed_dim=dim,
        decoder_layers=layers,
        decoder_attention="1",
        dropout=dropout,
        share_all_embeddings=True,
    )
