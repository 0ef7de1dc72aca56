# The students of every experiment, in rows of tables: `main`, and one group for each question. Sourced by experiment.sh;
# WEIGHT, TEMPERATURE and TOPK are the main student's.

WEIGHT=${WEIGHT:-0.5} TEMPERATURE=${TEMPERATURE:-1} TOPK=${TOPK:-8} STORE_TOPK=${STORE_TOPK:-64}
STORED=(--topk "$STORE_TOPK" --temperatures 1 2 5 10 --gold)

# NAME DATA OPTIONS...
teacher teacher data-bin
teacher teacher-left-to-right data-bin --teacher-attention left-to-right --cmlm-mask-prob 0.15
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

if declare -F task_systems > /dev/null; then task_systems; fi

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
for k in 1 2 4 8 64; do
    [ "$k" = "$TOPK" ] || ((k > STORE_TOPK)) \
        || system topk-$k group=topk value=$k label="k = $k" -- $(kd --kd-topk $k)
done
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

# one dictionary or two, for Transformers (separate embeddings on both sides of the student, so it has its own baseline and start)
if [[ $STUDENT_ARCH = *transformer* ]]; then
    SEPARATE="--arch transformer $STUDENT_MODEL --encoder-normalize-before --decoder-normalize-before --share-decoder-input-output-embed"
    system plain-separate group=dictionary label='plain, two dictionaries' data=data-separate store= after= model="$SEPARATE" \
        -- --kd-weight 0
    system distilled-separate group=dictionary label='distilled, two dictionaries' baseline=plain-separate data=data-separate \
        store=separate after= model="$SEPARATE" -- $(kd)
fi

# what the student is; each beside a plain one of its own kind, from the start
student_kind() { # NAME LABEL MODEL OPTIONS...; left out where it is what the main students are
    local name=$1 label=$2 model=$3; shift 3
    [ "$model" != "--arch $STUDENT_ARCH $STUDENT_MODEL" ] || return 0
    system "plain-$name" group=student label="plain, $label" store= baseline="plain-$name" after= model="$model" \
        -- --kd-weight 0 "$@"
    system "distilled-$name" group=student label="distilled, $label" baseline="plain-$name" after= model="$model" -- $(kd) "$@"
}
student_kind tiny '2+2 layers of 64' "--arch distilled_transformer_small $(transformer 2 64 256 2)"
student_kind small '3+3 layers of 128' "--arch distilled_transformer_small $(transformer 3 128 512 4)"
student_kind wide '3+3 layers of 256' "--arch distilled_transformer_small $(transformer 3 256 1024 4)"
student_kind lstm 'LSTM of 256' '--arch distilled_lstm_small'
CONV_DIMS='--encoder-embed-dim 128 --decoder-embed-dim 128 --decoder-out-embed-dim 128'
student_kind conv 'convolutions of 128' \
    "--arch fconv $CONV_DIMS --encoder-layers [(128,3)]*4 --decoder-layers [(128,3)]*4 --share-input-output-embed" --lr 1e-3

# sequence-level distillation (Kim & Rush, 2016) from the plain student's own beam
system beam group=sequence label="trained on the plain student's beam" data=data-beam store= -- --kd-weight 0
