#!/usr/bin/env bash
# Abstracts to titles of computational-linguistics papers, scored by ROUGE; finished steps are not repeated.
#
#   bash examples/acl_titles/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]
#
# DATA_DIR     {train,valid,test}.tsv or the same with .gz: abstract TAB title, raw text
# TEACHER_DIR  a transformers masked language model: a folder, or a hub name where there is a network
# OUT_DIR      everything that is written
# ROW          a system or a group of ../systems.sh, or `all` (default: main, plain against distilled)
#
# SIZE=laptop  the first 3,000 pairs, abstracts cut to 60 words, a small student: hours on two CPU cores (default)
# SIZE=gpu     all 27,636 pairs, abstracts cut to 250 words, for one GPU (not run by us yet)
# SIZE=paper   the paper's settings for Gigaword, on this data (not run by us yet)
# SEEDS="1 2 3"   seeds of the students         JOBS=1   students trained side by side
# PAIRS, WORDS, TEMPERATURE=1, WEIGHT=0.5, TOPK=8 and every other setting below can be given in the same way.
set -euo pipefail

TASK=acl_titles SOURCE=abstract TARGET=title METRIC=rouge
title() { printf 'ACL titles, first %s training pairs, abstracts cut to %s words' "$PAIRS" "$WORDS"; }

size_laptop() {
    default PAIRS=3000 WORDS=60 TEACHER_UPDATES=1200 TEACHER_LR=3e-4 TEACHER_WARMUP=80 TEACHER_TOKENS=2048 TEACHER_VALIDATE=300 \
        STUDENT_UPDATES=1500 STUDENT_LR=3e-3 STUDENT_WARMUP=200 STUDENT_TOKENS=4096 STUDENT_VALIDATE=250 \
        STUDENT_SCHEDULE=polynomial_decay STUDENT_EXTRA='--dropout 0.3' TEACHER_EXTRA='--cmlm-mask-prob 0.4'   # as multi30k
}
size_gpu() {
    transformer_student 3 256 1024 4
    default PAIRS=27636 WORDS=250 TEACHER_UPDATES=6000 TEACHER_LR=1e-4 TEACHER_WARMUP=600 TEACHER_TOKENS=32768 TEACHER_VALIDATE=500 \
        STUDENT_UPDATES=10000 STUDENT_LR=2e-3 STUDENT_WARMUP=1000 STUDENT_TOKENS=16384 STUDENT_VALIDATE=500 \
        STUDENT_EXTRA='--dropout 0.3'
}
size_paper() { # the paper's settings for Gigaword (its App. A); this data is not in the paper
    default PAIRS=27636 WORDS=250 TEACHER_UPDATES=100000 TEACHER_LR=5e-5 TEACHER_WARMUP=5000 TEACHER_TOKENS=65536 TEACHER_VALIDATE=5000 \
        STUDENT_UPDATES=70000 STUDENT_LR=1.4e-3 STUDENT_WARMUP=4000 STUDENT_TOKENS=36864 STUDENT_VALIDATE=1000 \
        STUDENT_ARCH=distilled_transformer_base TEMPERATURE=10 WEIGHT=0.1 TEACHER_EXTRA=--fp16 STUDENT_EXTRA='--fp16 --dropout 0.1' \
        DECODE="--beam 5 --lenpen 0.6 --max-len-a 1.2 --max-len-b 10"
}

unpacked() { if [ -e "$DATA_DIR/$1.gz" ]; then gzip -dc "$DATA_DIR/$1.gz"; else cat "$DATA_DIR/$1"; fi; }
prepare_text() {
    local split pairs
    for split in train valid test; do
        pairs=$([ "$split" = train ] && printf '%s' "$PAIRS" || printf 1000000)
        unpacked "$split.tsv" | sed -n "1,${pairs}p" \
            | awk -F '\t' -v words="$WORDS" -v abstract="text/$split.abstract" -v title="text/$split.title" '{
                count = split($1, word, " "); line = word[1]
                for (i = 2; i <= count && i <= words; i++) line = line " " word[i]
                print line > abstract; print $2 > title }'
    done
}

. "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh" "$@"
