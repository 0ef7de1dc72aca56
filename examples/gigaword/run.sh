#!/usr/bin/env bash
# Gigaword headlines (summarisation, ROUGE) as in the paper; finished steps are not repeated.
#
#   SIZE=paper bash examples/gigaword/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]
#
# DATA_DIR     ggw_data.zip of UniLM or its folder org_data/ ({train,dev,test}.{src,tgt}.txt), or sumdata/ of the first
#              release (train/{train.article,train.title,valid.article.filter,valid.title.filter}.txt, Giga/input.txt,
#              Giga/task1_ref0.txt): the same pairs
# TEACHER_DIR  a transformers masked language model (the paper: bert-base-uncased)
# OUT_DIR      everything that is written
# ROW          a system or a group of ../systems.sh, `paper` for the paper's unequal budgets, or `all`
#              (default: main, plain against distilled with equal budgets)
#
# Sets: valid is the paper's dev, testdev its test-dev (5,000 pairs each out of the official validation set; which ones
# is not released, SAMPLE_SEED=1 is ours), test the official test (1,951 pairs).
#
# SIZE=laptop  the first 5,000 pairs of up to 40 words and a small student, 500 pairs of each set (default; ours)
# SIZE=gpu     the first 500,000 pairs and a smaller student, for one GPU (ours)
# SIZE=paper   the paper's settings (not run by us yet)
# SEEDS="1 2 3"   seeds of the students         JOBS=1   students trained side by side
# BEAM=4       the paper's; its code's example has 5
# FETCH=1      fetch ggw_data.zip into DATA_DIR    GPUS=1   GPUs that train one model side by side
# DRY_RUN=1    prepare the text and show the commands without running them
# PAIRS, MAX_WORDS, TEST_PAIRS, WEIGHT=0.1, TEMPERATURE=10, TOPK=8 and every other setting can be given in the same way.
set -euo pipefail

TASK=gigaword SOURCE=article TARGET=title METRIC=rouge TEST_SETS='test testdev'
. "$(dirname "${BASH_SOURCE[0]}")/../recipes/recipe.sh"
ARCHIVE_URL='https://drive.usercontent.google.com/download?id=1USoQ8lJgN8kAWnUnRrupMGrPMLlDVqlV&export=download&confirm=t'
title() { printf 'Gigaword headlines, %s, dev drawn with seed %s' "$(part_title)" "$SAMPLE_SEED"; }

paper_method() { # at every size
    default WEIGHT=0.1 TEMPERATURE=10 TOPK=8 DROPOUT=0.1 SAMPLE_PAIRS=5000 SAMPLE_SEED=1
    paper_decoding
}
size_laptop() {
    paper_method
    default PAIRS=5000 MAX_WORDS=40 VALID_PAIRS=500 TEST_PAIRS=500 \
        TEACHER_UPDATES=800 TEACHER_LR=3e-4 TEACHER_WARMUP=80 TEACHER_TOKENS=2048 TEACHER_VALIDATE=200 \
        STUDENT_UPDATES=2000 STUDENT_LR=3e-3 STUDENT_WARMUP=400 STUDENT_TOKENS=2048 STUDENT_VALIDATE=250 \
        PLAIN_UPDATES=1400 PLAIN_LR=1.5e-3 PLAIN_WARMUP=400 PLAIN_BATCH='' STUDENT_EXTRA="--dropout $DROPOUT"
}
size_gpu() {
    transformer_student 6 512 1024 4
    paper_method
    default PAIRS=500000 MAX_WORDS=all VALID_PAIRS=all TEST_PAIRS=all STORE_TOPK=8 \
        TEACHER_UPDATES=20000 TEACHER_LR=1e-4 TEACHER_WARMUP=1000 TEACHER_TOKENS=32768 TEACHER_VALIDATE=1000 \
        STUDENT_UPDATES=30000 STUDENT_LR=1e-3 STUDENT_WARMUP=4000 STUDENT_TOKENS=16384 STUDENT_VALIDATE=1000 \
        PLAIN_UPDATES=21000 PLAIN_LR=5e-4 PLAIN_WARMUP=4000 PLAIN_BATCH='' \
        STUDENT_EXTRA="--dropout $DROPOUT"
}
size_paper() { # the paper's App. A; validation intervals are those of the code for De-En
    paper_method
    default PAIRS=all MAX_WORDS=all VALID_PAIRS=all TEST_PAIRS=all STORE_TOPK=8 STUDENT_ARCH=distilled_transformer_base \
        TEACHER_UPDATES=100000 TEACHER_LR=5e-5 TEACHER_WARMUP=5000 TEACHER_VALIDATE=5000 \
        STUDENT_UPDATES=70000 STUDENT_LR="$(paper_lr 2 4000)" STUDENT_WARMUP=4000 STUDENT_VALIDATE=1000 \
        PLAIN_UPDATES=50000 PLAIN_LR="$(paper_lr 1 4000)" PLAIN_WARMUP=4000
    paper_batches 65536 36864 40960
}

prepare_text() {
    local folder=org_data
    [ ! -d "$DATA_DIR/sumdata" ] || folder=sumdata
    official_files "$folder" ggw_data.zip "$ARCHIVE_URL"
    # shellcheck disable=SC2046
    recipe prepare_gigaword "$OFFICIAL/$folder" $(part) --sample-pairs "$SAMPLE_PAIRS" --sample-seed "$SAMPLE_SEED"
}
after_tokenize() { # <unk> is the teacher's unknown token
    run_step unknown-words python "$EXAMPLES/recipes/unknown_words.py" --tokenizer "$TEACHER" \
        pieces/{train,valid,test,testdev}.{article,title}
}
after_students() {
    rm -f done/scores-rouge # students may have come since
    run_step scores-rouge python "$EXAMPLES/recipes/rouge_scores.py" "$OUT" --language title --subsets valid testdev test
}

. "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh" "$@"
