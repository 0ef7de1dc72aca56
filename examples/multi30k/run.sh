#!/usr/bin/env bash
# Multi30k German-English with a pre-trained BERT as teacher; finished steps are not repeated.
#
#   bash examples/multi30k/run.sh DATA_DIR TEACHER_DIR OUT_DIR
#
# DATA_DIR     {train,valid,test}.{de,en} or the same with .gz (github.com/multi30k/dataset, task1/raw;
#              test is test_2016_flickr)
# TEACHER_DIR  a transformers masked language model: a folder, or a hub name where there is a network
# OUT_DIR      everything that is written
#
# SIZE=small   the first 10,000 pairs and a small student: hours on two CPU cores (default)
# SIZE=full    all 29,000 pairs and longer training: for a GPU (not run by us yet)
# SEEDS="1 2 3"   seeds of the students
# TEMPERATURE=2   divides the teacher's logits; see README.md for the choice (the paper has 10)
set -euo pipefail

[ $# -eq 3 ] || { sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DATA=$(cd "$1" && pwd)
TEACHER=$([ -d "$2" ] && cd "$2" && pwd || printf '%s' "$2")
mkdir -p "$3" && OUT=$(cd "$3" && pwd)
. "$HERE/../lib.sh"
cd "$OUT"
PLUGIN=$(fairseq-bert-kd --user-dir)
SEEDS=${SEEDS:-1 2 3}
TEMPERATURE=${TEMPERATURE:-2}

case ${SIZE:-small} in
    small) PAIRS=10000 T_UPDATES=1000 TEACHER_LR=3e-4 TEACHER_TOKENS=2048 S_UPDATES=2000 STUDENT_TOKENS=2048 ;;
    full)  PAIRS=29000 T_UPDATES=4000 TEACHER_LR=1e-4 TEACHER_TOKENS=8192 S_UPDATES=8000 STUDENT_TOKENS=4096 ;;
    *) echo "SIZE is small or full, not '${SIZE}'"; exit 2 ;;
esac
TEACHER_UPDATES=${TEACHER_UPDATES:-$T_UPDATES} STUDENT_UPDATES=${STUDENT_UPDATES:-$S_UPDATES}
# a data folder of another size would be reused without a word
if [ -e size ] && [ "$(cat size)" != "$PAIRS" ]; then
    echo "$OUT holds a run on $(cat size) pairs; give another OUT_DIR for $PAIRS"; exit 2
fi
echo "$PAIRS" > size

take() { # SPLIT LANGUAGE LINES: the first lines of a file, packed or not
    if [ -e "$DATA/$1.$2.gz" ]; then gzip -dc "$DATA/$1.$2.gz"; else cat "$DATA/$1.$2"; fi | sed -n "1,$3p"
}
mkdir -p text
for language in de en; do
    take train "$language" "$PAIRS" > "text/train.$language"
    for split in valid test; do take "$split" "$language" '$' > "text/$split.$language"; done
done

run_step tokenize fairseq-bert-kd tokenize --tokenizer "$TEACHER" --overwrite \
    --input text/{train,valid,test}.{de,en} --output {train,valid,test}.{de,en}
QUIET=1 run_step preprocess fairseq-preprocess --user-dir "$PLUGIN" --task translation_with_teacher \
    --source-lang de --target-lang en --trainpref train --validpref valid --testpref test \
    --joined-dictionary --destdir data-bin --workers 2

TRAINING=$TEACHER_UPDATES run_step teacher fairseq-train data-bin --user-dir "$PLUGIN" \
    --task conditional_masked_lm --criterion conditional_masked_lm \
    --arch hf_masked_lm --teacher-model "$TEACHER" \
    --optimizer adam --adam-betas '(0.9,0.98)' --weight-decay 0.01 --clip-norm 1.0 \
    --lr "$TEACHER_LR" --lr-scheduler polynomial_decay --warmup-updates 100 \
    --total-num-update "$TEACHER_UPDATES" --max-update "$TEACHER_UPDATES" --max-tokens "$TEACHER_TOKENS" \
    --save-dir teacher --log-interval 20 --log-format simple --seed 1 \
    --no-epoch-checkpoints --save-interval-updates 200 --keep-interval-updates 1

run_step dump fairseq-bert-kd dump data-bin --path teacher/checkpoint_last.pt --topk 8 --passes 7 --overwrite

# The same student twice for each seed; only --kd-weight differs. The checkpoint with the best validation
# BLEU is decoded, for both.
train_student() {
    local name=$1 seed=$2; shift 2
    local run=$name.$seed
    TRAINING=$STUDENT_UPDATES run_step "$run" fairseq-train data-bin --user-dir "$PLUGIN" \
        --task translation_with_teacher --arch distilled_transformer_small \
        --criterion label_smoothed_cross_entropy_with_distillation --label-smoothing 0.1 "$@" \
        --optimizer adam --adam-betas '(0.9,0.98)' --clip-norm 5.0 \
        --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 400 \
        --max-update "$STUDENT_UPDATES" --max-tokens "$STUDENT_TOKENS" --seed "$seed" \
        --eval-bleu --eval-bleu-args '{"beam": 1}' --validate-interval-updates 400 --validate-interval 1000 \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --no-epoch-checkpoints --save-interval 1000 --save-interval-updates 400 --keep-interval-updates 1 \
        --save-dir "$run" --log-interval 100 --log-format simple
    STDOUT_TO=$run.out run_step "$run-generate" fairseq-generate data-bin --user-dir "$PLUGIN" \
        --task translation_with_teacher --path "$run/checkpoint_best.pt" --gen-subset test \
        --beam 5 --max-tokens 8192 --bpe hf_tokenizer --hf-tokenizer "$TEACHER"
}
PLAIN='' DISTILLED=''
for seed in $SEEDS; do
    train_student plain "$seed" --kd-weight 0
    train_student distilled "$seed" --kd-weight 0.5 --kd-temperature "$TEMPERATURE" --kd-topk 8
    PLAIN+=${PLAIN:+,}plain.$seed.out DISTILLED+=${DISTILLED:+,}distilled.$seed.out
done

printf '\n== score: %s pairs, %s updates each, seeds %s\n' "$PAIRS" "$STUDENT_UPDATES" "$SEEDS"
fairseq-bert-kd score --reference text/test.en --lowercase "plain=$PLAIN" "distilled=$DISTILLED" --json scores.json --overwrite
