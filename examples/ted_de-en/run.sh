#!/usr/bin/env bash
# TED talks German-English (part of IWSLT'14's training set, its official test); finished steps are not repeated.
#
#   bash examples/ted_de-en/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]
#
# DATA_DIR     {train,valid,test}.{de,en} or the same with .gz, Moses-tokenised and lower-cased, as fairseq's
#              prepare-iwslt14.sh writes before subword segmentation
# TEACHER_DIR  a transformers masked language model: a folder, or a hub name where there is a network
# OUT_DIR      everything that is written
# ROW          a system or a group of ../systems.sh, or `all` (default: main, plain against distilled)
#
# SIZE=laptop  the first 8,000 pairs of up to 30 words and a small student: hours on two CPU cores (default);
#              the test is cut to its first 1,000 pairs
# SIZE=gpu     all pairs and a larger student, for one GPU (not run by us yet)
# SIZE=paper   the paper's sizes and update counts, its batches on one GPU (not run by us yet)
# SEEDS="1 2 3"   seeds of the students         JOBS=1   students trained side by side
# PAIRS, MAX_WORDS, TEST_PAIRS, TEMPERATURE=1, WEIGHT=0.5, TOPK=8 and every other setting can be given in the same way.
set -euo pipefail

TASK=ted_de-en SOURCE=de TARGET=en
title() {
    printf 'TED talks German–English, %s training pairs of up to %s words, test of %s' "$PAIRS" "$MAX_WORDS" "$TEST_PAIRS"
}

size_laptop() {
    default PAIRS=8000 MAX_WORDS=30 TEST_PAIRS=1000 VALID_PAIRS=500 BLEU_TOKENIZE=none \
        TEACHER_UPDATES=1200 TEACHER_LR=3e-4 TEACHER_WARMUP=80 TEACHER_TOKENS=2048 TEACHER_VALIDATE=300 \
        STUDENT_UPDATES=2000 STUDENT_LR=3e-3 STUDENT_WARMUP=200 STUDENT_TOKENS=2048 STUDENT_VALIDATE=250 \
        STUDENT_SCHEDULE=polynomial_decay STUDENT_EXTRA='--dropout 0.3' TEACHER_EXTRA='--cmlm-mask-prob 0.4'   # as multi30k
}
size_gpu() {
    transformer_student 6 512 1024 4
    default PAIRS=55910 MAX_WORDS=175 TEST_PAIRS=6750 VALID_PAIRS=2000 BLEU_TOKENIZE=none \
        TEACHER_UPDATES=8000 TEACHER_LR=1e-4 TEACHER_WARMUP=800 TEACHER_TOKENS=16384 TEACHER_VALIDATE=1000 \
        STUDENT_UPDATES=16000 STUDENT_LR=1e-3 STUDENT_WARMUP=2000 STUDENT_TOKENS=8192 STUDENT_VALIDATE=1000 \
        STUDENT_EXTRA='--dropout 0.3'
}
size_paper() { # the paper's settings for IWSLT14 (its App. A), on the part of it that is here
    default PAIRS=55910 MAX_WORDS=175 TEST_PAIRS=6750 VALID_PAIRS=2000 BLEU_TOKENIZE=none \
        TEACHER_UPDATES=100000 TEACHER_LR=5e-5 TEACHER_WARMUP=5000 TEACHER_TOKENS=16384 TEACHER_VALIDATE=5000 \
        STUDENT_UPDATES=100000 STUDENT_LR=1e-3 STUDENT_WARMUP=8000 STUDENT_TOKENS=6144 STUDENT_VALIDATE=1000 \
        STUDENT_ARCH=distilled_transformer_base TEMPERATURE=10 TEACHER_EXTRA=--fp16 STUDENT_EXTRA='--fp16 --dropout 0.3' \
        DECODE='--beam 5 --lenpen 0.6 --max-len-a 1.2 --max-len-b 10'
}

unpacked() { if [ -e "$DATA_DIR/$1.gz" ]; then gzip -dc "$DATA_DIR/$1.gz"; else cat "$DATA_DIR/$1"; fi; }
take() { # SPLIT PAIRS MAX_WORDS: the first pairs of which neither side is longer
    paste <(unpacked "$1.de") <(unpacked "$1.en") \
        | awk -F '\t' -v pairs="$2" -v words="$3" -v de="text/$1.de" -v en="text/$1.en" \
            'split($1, a, " ") <= words && split($2, b, " ") <= words && taken < pairs { print $1 > de; print $2 > en; taken++ }'
}
prepare_text() {
    local file
    for file in {train,valid,test}.{de,en}; do
        [ -e "$DATA_DIR/$file" ] || [ -e "$DATA_DIR/$file.gz" ] || { echo "$DATA_DIR has neither $file nor $file.gz"; exit 2; }
    done
    take train "$PAIRS" "$MAX_WORDS"
    take valid "$VALID_PAIRS" "$MAX_WORDS"
    take test "$TEST_PAIRS" 100000
}

. "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh" "$@"
