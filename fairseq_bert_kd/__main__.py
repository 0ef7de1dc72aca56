"""``python -m fairseq_bert_kd`` is ``fairseq-bert-kd``."""

import sys

from fairseq_bert_kd.cli.main import cli_main

sys.exit(cli_main())
