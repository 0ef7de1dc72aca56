#!/usr/bin/env bash
# WMT14 English-German as in the paper; finished steps are not repeated.
#
# As in the paper, a plain student is trained first (system `paper-plain`), and all others continue from its best
# checkpoint: the distilled one, and for the fair comparison (`main`) a plain one with the same further updates.
#
#   SIZE=paper bash examples/wmt14_en-de/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]
#
# DATA_DIR     wmt16_en_de.tar.gz, the text that Vaswani et al. (2017) used, as Google handed it on, or what it holds:
#              {train.tok.clean,newstest2013.tok,newstest2014.tok}.{en,de}, or these with .bpe.32000 before .en and .de;
#              newstest201{3,4}.de, raw, are taken for sacreBLEU where they are there
# TEACHER_DIR  a cased, multilingual masked language model (the paper: bert-base-multilingual-cased); one that drops
#              accents is refused, because students learn to write its text
# OUT_DIR      everything that is written
# ROW          a system or a group of ../systems.sh, `paper` for the paper's unequal budgets, or `all`
#              (default: main, plain against distilled with equal budgets)
#
# SIZE=laptop  the first 5,000 pairs of up to 30 words and a small student, test cut to 500 pairs (default; ours)
# SIZE=gpu     the first 500,000 pairs and a smaller student, for one GPU (ours)
# SIZE=paper   the paper's settings, with GPUS=4 (not run by us yet)
# SEEDS="1 2 3"   seeds of the students         JOBS=1   students trained side by side
# BEAM=4       the paper's; its code's example has 5
# GPUS=4       GPUs that train one model side by side; TEACHER_GPU_TOKENS=16384 and STUDENT_GPU_TOKENS=8192 are what
#              each takes at a time, the rest of a batch is accumulated
# FETCH=1      fetch wmt16_en_de.tar.gz into DATA_DIR
# DRY_RUN=1    prepare the text and show the commands without running them
# PAIRS, MAX_WORDS, TEST_PAIRS, WEIGHT=0.1, TEMPERATURE=5, TOPK=8 and every other setting can be given in the same way.
set -euo pipefail

TASK=wmt14_en-de SOURCE=en TARGET=de CONTINUE_FROM=paper-plain
[ "${SIZE:-}" != paper ] || GPUS=${GPUS:-4}
. "$(dirname "${BASH_SOURCE[0]}")/../recipes/recipe.sh"
ARCHIVE_URL='https://drive.usercontent.google.com/download?id=0B_bZck-ksdkpM25jRUN2X2UxMm8&export=download&confirm=t'
title() { printf 'WMT14 English–German, %s' "$(part_title)"; }

paper_method() { # at every size; the text keeps its case and Moses's tokens, so BLEU takes it as it is
    default WEIGHT=0.1 TEMPERATURE=5 TOPK=8 DROPOUT=0.1 BLEU_TOKENIZE=none LOWERCASE=0
    paper_decoding
}
size_laptop() {
    paper_method
    default PAIRS=5000 MAX_WORDS=30 VALID_PAIRS=500 TEST_PAIRS=500 \
        TEACHER_UPDATES=800 TEACHER_LR=3e-4 TEACHER_WARMUP=80 TEACHER_TOKENS=2048 TEACHER_VALIDATE=200 \
        PLAIN_UPDATES=1500 PLAIN_LR=3e-3 PLAIN_WARMUP=400 PLAIN_BATCH='--max-tokens 4096' \
        STUDENT_UPDATES=1500 STUDENT_LR=1.5e-3 STUDENT_WARMUP=400 STUDENT_TOKENS=2048 STUDENT_VALIDATE=250 \
        STUDENT_EXTRA="--dropout $DROPOUT"
}
size_gpu() {
    transformer_student 6 512 1024 4
    paper_method
    default PAIRS=500000 MAX_WORDS=all VALID_PAIRS=all TEST_PAIRS=all STORE_TOPK=8 \
        TEACHER_UPDATES=20000 TEACHER_LR=1e-4 TEACHER_WARMUP=1000 TEACHER_TOKENS=16384 TEACHER_VALIDATE=1000 \
        PLAIN_UPDATES=20000 PLAIN_LR=1e-3 PLAIN_WARMUP=4000 PLAIN_BATCH='--max-tokens 8192 --update-freq 4' \
        STUDENT_UPDATES=30000 STUDENT_LR=5e-4 STUDENT_WARMUP=4000 STUDENT_TOKENS=8192 STUDENT_VALIDATE=1000 \
        STUDENT_EXTRA="--dropout $DROPOUT"
}
size_paper() { # the paper's App. A; validation intervals are those of the code for De-En
    paper_method
    default PAIRS=all MAX_WORDS=all VALID_PAIRS=all TEST_PAIRS=all STORE_TOPK=8 STUDENT_ARCH=distilled_transformer_base \
        TEACHER_UPDATES=100000 TEACHER_LR=5e-5 TEACHER_WARMUP=5000 TEACHER_VALIDATE=5000 \
        PLAIN_UPDATES=30000 PLAIN_LR="$(paper_lr 4 4000)" PLAIN_WARMUP=4000 \
        STUDENT_UPDATES=50000 STUDENT_LR="$(paper_lr 2 4000)" STUDENT_WARMUP=4000 STUDENT_VALIDATE=1000
    paper_batches 524288 65536 393216
}
either() { # FILE: without subwords where it is there
    if [ -e "$OFFICIAL/$1.de" ] || [ -e "$OFFICIAL/$1.de.gz" ]; then printf '%s' "$OFFICIAL/$1"; else printf '%s' "$OFFICIAL/$1.bpe.32000"; fi
}
prepare_text() {
    local file=train.tok.clean.bpe.32000.de raw=() set
    for set in train.tok.clean.de{,.gz}; do [ ! -e "$DATA_DIR/$set" ] || file=$set; done
    official_files "$file" wmt16_en_de.tar.gz "$ARCHIVE_URL"
    [ ! -e "$OFFICIAL/newstest2013.de" ] || raw+=(--valid-raw "$OFFICIAL/newstest2013.de")
    [ ! -e "$OFFICIAL/newstest2014.de" ] || raw+=(--test-raw "$OFFICIAL/newstest2014.de")
    # shellcheck disable=SC2046
    recipe prepare_tokenised --languages en de --train "$(either train.tok.clean)" --valid "$(either newstest2013.tok)" \
        --test "$(either newstest2014.tok)" "${raw[@]}" $(part)
    recipe check_teacher_text --tokenizer "$TEACHER" text/valid.de
}
after_students() { moses_scores --compounds; }

. "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh" "$@"
