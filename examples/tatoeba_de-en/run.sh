#!/usr/bin/env bash
# Tatoeba German-English (short everyday sentences): how the gain changes with the amount of data.
# Finished steps are not repeated.
#
#   PAIRS=20000 bash examples/tatoeba_de-en/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]
#
# DATA_DIR     {train,valid,test}.{de,en} or the same with .gz, raw text
# TEACHER_DIR  a transformers masked language model: a folder, or a hub name where there is a network
# OUT_DIR      everything that is written; another one for each PAIRS
# ROW          a system or a group of ../systems.sh, or `all` (default: main, plain against distilled)
#
# SIZE=laptop  the first 5,000 pairs and a small student: hours on two CPU cores (default)
# SIZE=gpu     all 164,676 pairs and a larger student, for one GPU (not run by us yet)
# SIZE=paper   the paper's settings for IWSLT14, on this data (not run by us yet)
# SEEDS="1 2 3"   seeds of the students         JOBS=1   students trained side by side
# PAIRS, TEMPERATURE=1, WEIGHT=0.5, TOPK=8 and every other setting below can be given in the same way.
set -euo pipefail

TASK=tatoeba_de-en SOURCE=de TARGET=en
title() { printf 'Tatoeba German–English, first %s training pairs' "$PAIRS"; }

size_laptop() {
    default PAIRS=5000 TEACHER_UPDATES=1200 TEACHER_LR=3e-4 TEACHER_WARMUP=80 TEACHER_TOKENS=2048 TEACHER_VALIDATE=300 \
        STUDENT_UPDATES=2000 STUDENT_LR=3e-3 STUDENT_WARMUP=200 STUDENT_TOKENS=2048 STUDENT_VALIDATE=250 \
        STUDENT_SCHEDULE=polynomial_decay STUDENT_EXTRA='--dropout 0.3' TEACHER_EXTRA='--cmlm-mask-prob 0.4'   # as multi30k
}
size_gpu() {
    transformer_student 3 256 1024 4
    default PAIRS=164676 TEACHER_UPDATES=8000 TEACHER_LR=1e-4 TEACHER_WARMUP=800 TEACHER_TOKENS=8192 TEACHER_VALIDATE=1000 \
        STUDENT_UPDATES=16000 STUDENT_LR=2e-3 STUDENT_WARMUP=1000 STUDENT_TOKENS=8192 STUDENT_VALIDATE=1000 \
        STUDENT_EXTRA='--dropout 0.3'
}
size_paper() { # the paper's settings for IWSLT14 (its App. A); Tatoeba is not in the paper
    default PAIRS=164676 TEACHER_UPDATES=100000 TEACHER_LR=5e-5 TEACHER_WARMUP=5000 TEACHER_TOKENS=16384 TEACHER_VALIDATE=5000 \
        STUDENT_UPDATES=100000 STUDENT_LR=1e-3 STUDENT_WARMUP=8000 STUDENT_TOKENS=6144 STUDENT_VALIDATE=1000 \
        STUDENT_ARCH=distilled_transformer_base TEMPERATURE=10 TEACHER_EXTRA=--fp16 STUDENT_EXTRA='--fp16 --dropout 0.3' \
        DECODE="--beam 5 --lenpen 0.6 --max-len-a 1.2 --max-len-b 10"
}

unpacked() { if [ -e "$DATA_DIR/$1.gz" ]; then gzip -dc "$DATA_DIR/$1.gz"; else cat "$DATA_DIR/$1"; fi; }
prepare_text() {
    local language
    for language in de en; do
        unpacked "train.$language" | sed -n "1,${PAIRS}p" > "text/train.$language"
        unpacked "valid.$language" > "text/valid.$language"
        unpacked "test.$language" > "text/test.$language"
    done
}

. "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh" "$@"
