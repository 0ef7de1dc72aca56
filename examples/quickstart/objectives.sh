#!/usr/bin/env bash
# Every objective on the quickstart's corpus, from one store: the same student, data and number of updates, several
# seeds, one table. Runs the quickstart first where its teacher is missing. Finished steps are not repeated.
#
#   bash examples/quickstart/objectives.sh [OUT]      SEEDS='1 2 3' STUDENT_UPDATES=400 JOBS=2 (runs side by side)
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${1:-"$HERE/out"}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd)
SEEDS=${SEEDS:-1 2 3}
STUDENT_UPDATES=${STUDENT_UPDATES:-400}
JOBS=${JOBS:-2}
[ -e "$OUT/done/dump" ] || bash "$HERE/run.sh" "$OUT"
. "$HERE/../lib.sh"
cd "$OUT"
PLUGIN=$(fairseq-bert-kd --user-dir)
mkdir -p objectives
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(getconf _NPROCESSORS_ONLN) / JOBS > 0 ? $(getconf _NPROCESSORS_ONLN) / JOBS : 1))}

for split in train valid; do
    run_step "dump-all-$split" fairseq-bert-kd dump data-bin --path teacher/checkpoint_last.pt --name all --subset $split \
        --topk 8 --passes 7 --gold --samples 8 --temperatures 1 2 10
done

STORE=(--kd-stores all --kd-topk 8)
student() {
    local name=$1 seed=$2; shift 2
    RESUMES=1 QUIET=1 run_step "$name" fairseq-train data-bin --user-dir "$PLUGIN" \
        --task translation_with_teacher --arch distilled_transformer_small \
        --criterion label_smoothed_cross_entropy_with_distillation --label-smoothing 0.1 "$@" \
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 5.0 \
        --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 200 \
        --max-update "$STUDENT_UPDATES" --max-tokens 2048 --seed "$seed" --no-epoch-checkpoints \
        --save-dir "$name" --log-format simple --log-interval 50
    STDOUT_TO=$name.out run_step "$name-generate" fairseq-generate data-bin --user-dir "$PLUGIN" \
        --task translation_with_teacher --path "$name/checkpoint_last.pt" --gen-subset test \
        --beam 5 --max-len-a 1.5 --max-len-b 10 --max-tokens 8192 --bpe hf_tokenizer --hf-tokenizer bert
}

declare -A OPTIONS=(
    [plain]="--kd-weight 0"
    [paper-T10]="${STORE[*]} --kd-objective paper --kd-temperature 10"
    [paper-T1]="${STORE[*]} --kd-objective paper --kd-temperature 1"
    [renormalised-T2]="${STORE[*]} --kd-objective renormalised --kd-temperature 2 --kd-square-temperature"
    [conditional-T2]="${STORE[*]} --kd-objective conditional --kd-temperature 2 --kd-square-temperature"
    [tail-bucket-T1]="${STORE[*]} --kd-objective tail-bucket --kd-temperature 1"
    [sampled-T1]="${STORE[*]} --kd-objective sampled --kd-temperature 1"
    [full-T1]="--kd-objective full --kd-temperature 1 --kd-live-teacher teacher/checkpoint_last.pt"
)
NAMES=(plain paper-T10 paper-T1 renormalised-T2 conditional-T2 tail-bucket-T1 sampled-T1 full-T1)
for seed in $SEEDS; do
    for name in "${NAMES[@]}"; do
        while (($(jobs -rp | wc -l) >= JOBS)); do wait -n; done
        # shellcheck disable=SC2086
        student "objectives/$name.$seed" "$seed" ${OPTIONS[$name]} &
    done
done
while (($(jobs -rp | wc -l) > 0)); do wait -n; done

printf '\n== score: %s updates each, seeds %s, %s CPU cores\n' "$STUDENT_UPDATES" "$SEEDS" "$(getconf _NPROCESSORS_ONLN)"
SYSTEMS=()
for name in "${NAMES[@]}"; do
    outputs=
    for seed in $SEEDS; do outputs+="${outputs:+,}objectives/$name.$seed.out"; done
    SYSTEMS+=("$name=$outputs")
done
fairseq-bert-kd score --reference text/test.en "${SYSTEMS[@]}" --json objectives/scores.json --overwrite
