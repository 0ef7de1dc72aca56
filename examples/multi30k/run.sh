#!/usr/bin/env bash
# Multi30k German-English with a pre-trained BERT as teacher; finished steps are not repeated.
#
#   bash examples/multi30k/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]
#
# DATA_DIR     {train,valid,test}.{de,en} or the same with .gz (github.com/multi30k/dataset, task1/raw;
#              test is test_2016_flickr)
# TEACHER_DIR  a transformers masked language model: a folder, or a hub name where there is a network
# OUT_DIR      everything that is written
# ROW          a system or a group of ../systems.sh, or `all` (default: main, plain against distilled)
#
# SIZE=laptop  the first 5,000 pairs and a small student: hours on two CPU cores (default)
# SIZE=ablation  the same data and teacher, students of 2+2 layers of 64 and 1,000 updates: minutes each
#              (FROM=OUT_DIR of SIZE=laptop takes data, teacher and store from there)
# SIZE=gpu     all 29,000 pairs, a larger student and longer training, for one GPU (not run by us yet)
# SIZE=paper   the paper's model sizes and update counts, its batches on one GPU (not run by us yet)
# SEEDS="1 2 3"   seeds of the students         JOBS=1   students trained side by side
# PAIRS=5000, TEMPERATURE=1, WEIGHT=0.5, TOPK=8 and every other setting below can be given in the same way.
set -euo pipefail

TASK=multi30k SOURCE=de TARGET=en
title() { printf 'Multi30k German–English, first %s training pairs' "$PAIRS"; }

# --max-tokens counts the longer side of a pair
size_laptop() {
    default PAIRS=5000 TEACHER_UPDATES=1200 TEACHER_LR=3e-4 TEACHER_WARMUP=80 TEACHER_TOKENS=2048 TEACHER_VALIDATE=300 \
        STUDENT_UPDATES=2000 STUDENT_LR=3e-3 STUDENT_WARMUP=200 STUDENT_TOKENS=2048 STUDENT_VALIDATE=250 \
        STUDENT_SCHEDULE=polynomial_decay STUDENT_EXTRA='--dropout 0.3' TEACHER_EXTRA='--cmlm-mask-prob 0.4'   # few updates: more to learn from each
}
size_ablation() {
    transformer_student 2 64 256 2
    default STUDENT_UPDATES=1000 STUDENT_VALIDATE=500 STUDENT_EXTRA='--dropout 0.1'
    size_laptop
}
size_gpu() {
    transformer_student 3 256 1024 4
    default PAIRS=29000 TEACHER_UPDATES=4000 TEACHER_LR=1e-4 TEACHER_WARMUP=400 TEACHER_TOKENS=8192 TEACHER_VALIDATE=500 \
        STUDENT_UPDATES=8000 STUDENT_LR=2e-3 STUDENT_WARMUP=1000 STUDENT_TOKENS=4096 STUDENT_VALIDATE=500 \
        STUDENT_EXTRA='--dropout 0.3'
}
size_paper() { # the paper's settings for IWSLT14 (its App. A); Multi30k is not in the paper
    default PAIRS=29000 TEACHER_UPDATES=100000 TEACHER_LR=5e-5 TEACHER_WARMUP=5000 TEACHER_TOKENS=16384 TEACHER_VALIDATE=5000 \
        STUDENT_UPDATES=100000 STUDENT_LR=1e-3 STUDENT_WARMUP=8000 STUDENT_TOKENS=6144 STUDENT_VALIDATE=1000 \
        STUDENT_ARCH=distilled_transformer_base TEMPERATURE=10 TEACHER_EXTRA=--fp16 STUDENT_EXTRA='--fp16 --dropout 0.3' \
        DECODE="--beam 5 --lenpen 0.6 --max-len-a 1.2 --max-len-b 10"
}

take() { # SPLIT LANGUAGE LINES: the first lines of a file, packed or not
    if [ -e "$DATA_DIR/$1.$2.gz" ]; then gzip -dc "$DATA_DIR/$1.$2.gz"; else cat "$DATA_DIR/$1.$2"; fi | sed -n "1,$3p"
}
prepare_text() {
    local language split
    for language in de en; do
        take train "$language" "$PAIRS" > "text/train.$language"
        for split in valid test; do take "$split" "$language" '$' > "text/$split.$language"; done
    done
}

. "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh" "$@"
