#!/usr/bin/env bash
# IWSLT14 German-English as in the paper; finished steps are not repeated.
#
#   SIZE=paper bash examples/iwslt14_de-en/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]
#
# DATA_DIR     de-en.tgz of IWSLT14's official release, or its folder de-en/
# TEACHER_DIR  a transformers masked language model (the paper: bert-base-multilingual-cased)
# OUT_DIR      everything that is written
# ROW          a system or a group of ../systems.sh, `paper` for the paper's unequal budgets, or `all`
#              (default: main, plain against distilled with equal budgets)
#
# SIZE=laptop  the first 5,000 pairs of up to 30 words and a small student, test cut to 1,000 pairs (default; ours)
# SIZE=gpu     all pairs and a smaller student, for one GPU (ours)
# SIZE=paper   the paper's settings (not run by us yet)
# SEEDS="1 2 3"   seeds of the students         JOBS=1   students trained side by side
# BEAM=4       the paper's; its code's example has 5
# FETCH=1      fetch de-en.tgz into DATA_DIR    GPUS=1   GPUs that train one model side by side
# DRY_RUN=1    prepare the text and show the commands without running them
# PAIRS, MAX_WORDS, TEST_PAIRS, WEIGHT=0.5, TEMPERATURE=10, TOPK=8 and every other setting can be given in the same way.
set -euo pipefail

TASK=iwslt14_de-en SOURCE=de TARGET=en
. "$(dirname "${BASH_SOURCE[0]}")/../recipes/recipe.sh"
ARCHIVE_URL=http://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz
title() { printf 'IWSLT14 German–English, %s' "$(part_title)"; }

paper_method() { # at every size; the text is in lower case and in Moses's tokens, so BLEU takes it as it is
    default WEIGHT=0.5 TEMPERATURE=10 TOPK=8 DROPOUT=0.3 BLEU_TOKENIZE=none LOWERCASE=1
    paper_decoding
}
size_laptop() {
    paper_method
    default PAIRS=5000 MAX_WORDS=30 VALID_PAIRS=500 TEST_PAIRS=1000 \
        TEACHER_UPDATES=800 TEACHER_LR=3e-4 TEACHER_WARMUP=80 TEACHER_TOKENS=2048 TEACHER_VALIDATE=200 \
        STUDENT_UPDATES=2500 STUDENT_LR=3e-3 STUDENT_WARMUP=400 STUDENT_TOKENS=2048 STUDENT_VALIDATE=250 \
        PLAIN_UPDATES=1250 PLAIN_LR=2.1e-3 PLAIN_WARMUP=200 PLAIN_BATCH='' STUDENT_EXTRA="--dropout $DROPOUT"
}
size_gpu() {
    transformer_student 6 512 1024 4
    paper_method
    default PAIRS=all MAX_WORDS=all VALID_PAIRS=all TEST_PAIRS=all \
        TEACHER_UPDATES=20000 TEACHER_LR=1e-4 TEACHER_WARMUP=1000 TEACHER_TOKENS=16384 TEACHER_VALIDATE=1000 \
        STUDENT_UPDATES=30000 STUDENT_LR=1e-3 STUDENT_WARMUP=4000 STUDENT_TOKENS=8192 STUDENT_VALIDATE=1000 \
        PLAIN_UPDATES=15000 PLAIN_LR=7e-4 PLAIN_WARMUP=2000 PLAIN_BATCH='' \
        STUDENT_EXTRA="--dropout $DROPOUT"
}
size_paper() { # the paper's App. A and its code; the teacher's and students' validation intervals are the code's
    paper_method
    default PAIRS=all MAX_WORDS=all VALID_PAIRS=all TEST_PAIRS=all STUDENT_ARCH=distilled_transformer_base \
        TEACHER_UPDATES=100000 TEACHER_LR=5e-5 TEACHER_WARMUP=5000 TEACHER_VALIDATE=5000 \
        STUDENT_UPDATES=100000 STUDENT_LR="$(paper_lr 2 8000)" STUDENT_WARMUP=8000 STUDENT_VALIDATE=1000 \
        PLAIN_UPDATES=50000 PLAIN_LR="$(paper_lr 1 4000)" PLAIN_WARMUP=4000
    paper_batches 16384 6144 6144
}

prepare_text() {
    official_files de-en/train.tags.de-en.en de-en.tgz "$ARCHIVE_URL"
    # shellcheck disable=SC2046
    recipe prepare_iwslt14 "$OFFICIAL/de-en" $(part)
}
after_students() { moses_scores; }

. "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh" "$@"
