# The students of every experiment, in rows of tables: `main`, and one group for each question. Sourced by a task's
# run.sh after experiment.sh; WEIGHT, TEMPERATURE and TOPK are the task's (chosen on its validation set).

WEIGHT=${WEIGHT:-0.5} TEMPERATURE=${TEMPERATURE:-1} TOPK=${TOPK:-8} STORE_TOPK=${STORE_TOPK:-64}
STORED=(--topk "$STORE_TOPK" --temperatures 1 2 5 10 --gold)

# NAME DATA OPTIONS...
teacher teacher data-bin
teacher teacher-left-to-right data-bin --teacher-attention left-to-right
teacher teacher-small data-bin --teacher-layers "${SMALL_TEACHER_LAYERS:-3}"
teacher teacher-random data-bin --teacher-random-weights
teacher teacher-separate data-separate

# NAME TEACHER OPTIONS...: 7 passes hide every seventh position at a time (the paper)
store default teacher --passes 7 "${STORED[@]}"
store samples teacher --passes 7 --topk 8 --samples 8 --temperatures 1 2 5 10
store passes-2 teacher --passes 2 "${STORED[@]}"
store passes-3 teacher --passes 3 "${STORED[@]}"
store passes-20 teacher --passes 20 "${STORED[@]}"
store left-to-right teacher-left-to-right "${STORED[@]}"
store small teacher-small --passes 7 "${STORED[@]}"
store random teacher-random --passes 7 "${STORED[@]}"
store separate teacher-separate --passes 7 "${STORED[@]}"

# kd [OPTION VALUE]...: the options of the distilled student, each replaced where it is given
kd() {
    local -A value=([--kd-weight]=$WEIGHT [--kd-temperature]=$TEMPERATURE [--kd-topk]=$TOPK [--kd-objective]=paper)
    local key rest=()
    while [ $# -gt 0 ]; do
        if [ -n "${value[$1]:-}" ]; then value[$1]=$2; else rest+=("$1" "$2"); fi
        shift 2
    done
    for key in --kd-weight --kd-temperature --kd-topk --kd-objective; do printf '%s %s ' "$key" "${value[$key]}"; done
    printf '%s' "${rest[*]}"
}

system plain label='plain' store= -- --kd-weight 0
system distilled label='distilled' -- $(kd)

# what the teacher sees and what it is
system left-to-right group=teacher label='left-to-right teacher' store=left-to-right -- $(kd)
system small-teacher group=teacher label='teacher with its first 3 layers' store=small -- $(kd)
system random-teacher group=teacher label='teacher without pre-training' store=random -- $(kd)
for passes in 2 3 20; do
    system passes-$passes group=passes value=$passes label="$passes passes" store=passes-$passes -- $(kd)
done

# what the student takes from it
for k in 1 2 4 64; do system topk-$k group=topk value=$k label="k = $k" -- $(kd --kd-topk $k); done
for t in 1 2 5 10; do
    [ "$t" = "$TEMPERATURE" ] || system temperature-$t group=temperature value=$t label="T = $t" -- $(kd --kd-temperature $t)
done
for w in 0.1 0.3 0.5 0.7 0.9; do
    [ "$w" = "$WEIGHT" ] || system weight-$w group=weight value=$w label="weight $w" -- $(kd --kd-weight $w)
done
for objective in renormalised conditional tail-bucket; do
    system $objective group=objective label=$objective -- $(kd --kd-objective $objective)
done
system sampled group=objective label='sampled (k = 8, 8 draws)' store=samples -- $(kd --kd-objective sampled --kd-topk 8)

# one dictionary or two (separate embeddings on both sides of the student, so it has its own baseline)
SEPARATE='--arch transformer --encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 512
    --decoder-ffn-embed-dim 512 --encoder-attention-heads 4 --decoder-attention-heads 4 --encoder-layers 3
    --decoder-layers 3 --dropout 0.2 --encoder-normalize-before --decoder-normalize-before
    --share-decoder-input-output-embed'
system plain-separate group=dictionary label='plain, two dictionaries' data=data-separate store= -- --kd-weight 0 $SEPARATE
system distilled-separate group=dictionary label='distilled, two dictionaries' baseline=plain-separate data=data-separate \
    store=separate -- $(kd) $SEPARATE

# what the student is; each beside a plain one of its own kind
student_kind() { # NAME LABEL OPTIONS...
    local name=$1 label=$2; shift 2
    system "plain-$name" group=student label="plain, $label" store= baseline="plain-$name" -- --kd-weight 0 "$@"
    system "distilled-$name" group=student label="distilled, $label" baseline="plain-$name" -- $(kd) "$@"
}
student_kind tiny '2+2 layers of 64' --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 64 --decoder-embed-dim 64 \
    --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 --encoder-attention-heads 2 --decoder-attention-heads 2
student_kind wide '3+3 layers of 256' --encoder-embed-dim 256 --decoder-embed-dim 256 \
    --encoder-ffn-embed-dim 1024 --decoder-ffn-embed-dim 1024
student_kind lstm 'LSTM of 256' --arch distilled_lstm_small
student_kind conv 'convolutions of 128' --arch fconv --encoder-embed-dim 128 --decoder-embed-dim 128 \
    --decoder-out-embed-dim 128 --encoder-layers '[(128,3)]*4' --decoder-layers '[(128,3)]*4' --share-input-output-embed \
    --lr 1e-3

# sequence-level distillation (Kim & Rush, 2016) from the plain student's own beam
system beam group=sequence label="trained on the plain student's beam" data=data-beam store= -- --kd-weight 0
