"""BERT's knowledge for any fairseq sequence-to-sequence model.

Give the folder of this package to fairseq's ``--user-dir``. A program of one's own that uses our tasks, models or
criterions imports `fairseq_bert_kd.tasks` first, which registers them.
"""

__version__ = "0.1.0"
