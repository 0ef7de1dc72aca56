#!/usr/bin/env bash
# The whole chain on a generated German-English corpus, about 9 minutes on two CPU cores: a small BERT is
# trained from scratch as teacher, its soft labels are stored, and a distilled student stands beside a plain
# one of the same size, data, seed and number of updates. Finished steps are not repeated.
#
#   make quickstart                        or, in an environment that has the package:
#   bash examples/quickstart/run.sh [OUT]
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${1:-"$HERE/out"}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd)
. "$HERE/../lib.sh"
cd "$OUT"
PLUGIN=$(fairseq-bert-kd --user-dir)

TRAIN_PAIRS=${TRAIN_PAIRS:-18000}
TEACHER_UPDATES=${TEACHER_UPDATES:-6000}
STUDENT_UPDATES=${STUDENT_UPDATES:-400}

printf 'Distilling BERT into a fairseq translation model: German to English, everything in %s\n' "$OUT"

run_step corpus python "$HERE/make_corpus.py" --out text --train "$TRAIN_PAIRS" --overwrite
run_step bert python "$HERE/make_teacher.py" --text text/train.de text/train.en --out bert

run_step tokenize fairseq-bert-kd tokenize --tokenizer bert --overwrite \
    --input text/{train,valid,test}.{de,en} --output {train,valid,test}.{de,en}
QUIET=1 run_step preprocess fairseq-preprocess --user-dir "$PLUGIN" --task translation_with_teacher \
    --source-lang de --target-lang en --trainpref train --validpref valid --testpref test \
    --joined-dictionary --destdir data-bin --workers 2

RESUMES=1 TRAINING=$TEACHER_UPDATES run_step teacher fairseq-train data-bin --user-dir "$PLUGIN" \
    --task conditional_masked_lm --criterion conditional_masked_lm --arch hf_masked_lm --teacher-model bert \
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 \
    --lr 2e-3 --lr-scheduler polynomial_decay --warmup-updates 100 --total-num-update "$TEACHER_UPDATES" \
    --max-update "$TEACHER_UPDATES" --max-tokens 1024 --seed 1 --no-epoch-checkpoints \
    --save-dir teacher --log-format simple --log-interval 500

run_step dump fairseq-bert-kd dump data-bin --path teacher/checkpoint_last.pt --topk 8 --passes 7 --overwrite

# The same student twice; only the criterion's --kd-weight differs.
train_student() {
    local name=$1; shift
    RESUMES=1 TRAINING=$STUDENT_UPDATES run_step "$name" fairseq-train data-bin --user-dir "$PLUGIN" \
        --task translation_with_teacher --arch distilled_transformer_small \
        --criterion label_smoothed_cross_entropy_with_distillation --label-smoothing 0.1 "$@" \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 5.0 \
        --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 200 \
        --max-update "$STUDENT_UPDATES" --max-tokens 2048 --seed 1 --no-epoch-checkpoints \
        --save-dir "$name" --log-format simple --log-interval 50
    STDOUT_TO=$name.out run_step "$name-generate" fairseq-generate data-bin --user-dir "$PLUGIN" \
        --task translation_with_teacher --path "$name/checkpoint_last.pt" --gen-subset test \
        --beam 5 --max-len-a 1.5 --max-len-b 10 --max-tokens 8192 --bpe hf_tokenizer --hf-tokenizer bert
}
train_student plain --kd-weight 0
train_student distilled --kd-weight 0.5 --kd-temperature 1 --kd-topk 8

printf '\n== score: %s updates each, 1 seed, %s CPU cores\n' "$STUDENT_UPDATES" "$(getconf _NPROCESSORS_ONLN)"
fairseq-bert-kd score --reference text/test.en plain=plain.out distilled=distilled.out --json scores.json --overwrite
printf '\nThe first three translations of the distilled student:\n'
for id in 0 1 2; do grep -P "^(S|T|D)-$id\t" distilled.out | sed 's/^D-\([0-9]*\)\t[^\t]*/D-\1/'; done
printf '\nThe commands that ran, in order: %s\n' "$OUT/commands.sh"
