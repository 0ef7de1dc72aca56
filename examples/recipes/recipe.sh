# What the recipes of the paper's four tasks share. Source it before ../experiment.sh.
#
# GPUS=1           GPUs that train one model side by side
# FETCH=1          fetch official files that DATA_DIR lacks (never by default)

GPUS=${GPUS:-1}

# The paper's learning rate is ETA * 512^-0.5 * min(step^-0.5, step * WARMUP^-1.5). That is fairseq's inverse_sqrt with
# the peak, at step WARMUP, as --lr.
paper_lr() { awk -v eta="$1" -v warmup="$2" 'BEGIN { printf "%.6g\n", eta / sqrt(512) / sqrt(warmup) }'; } # ETA WARMUP

# accumulate BATCH LIMIT: a batch of BATCH tokens as TOKENS at a time on each of GPUS, in STEPS steps to an update; the
# fewest steps with at most LIMIT tokens at a time. Sets TOKENS and STEPS.
accumulate() {
    local batch=$1 limit=$2
    STEPS=$(((batch + GPUS * limit - 1) / (GPUS * limit)))
    while ((STEPS <= batch && batch % (GPUS * STEPS))); do STEPS=$((STEPS + 1)); done
    if ((STEPS > batch)); then
        echo "a batch of $batch tokens must be shared evenly, but GPUS=$GPUS does not divide it. Give a GPUS that does." >&2
        exit 2
    fi
    TOKENS=$((batch / GPUS / STEPS))
}

# paper_batches TEACHER STUDENT PLAIN: the three batches in tokens. What a GPU takes at a time is ours.
paper_batches() {
    local gpus="--fp16 --distributed-world-size $GPUS"
    default TEACHER_GPU_TOKENS=16384 STUDENT_GPU_TOKENS=8192
    accumulate "$1" "$TEACHER_GPU_TOKENS"
    default TEACHER_TOKENS="$TOKENS" TEACHER_EXTRA="$gpus --update-freq $STEPS"
    accumulate "$2" "$STUDENT_GPU_TOKENS"
    default STUDENT_TOKENS="$TOKENS" STUDENT_EXTRA="$gpus --update-freq $STEPS --dropout $DROPOUT"
    accumulate "$3" "$STUDENT_GPU_TOKENS"
    default PLAIN_BATCH="--max-tokens $TOKENS --update-freq $STEPS"
}

# paper_decoding: beam 4 and length penalty 0.6 (the paper; its code's example has beam 5). fairseq divides by
# length^0.6, the authors by ((5 + length) / 6)^0.6. The limit of length is ours.
paper_decoding() {
    default BEAM=4 MAX_LEN_A=1.5
    default DECODE="--beam $BEAM --lenpen 0.6 --max-len-a $MAX_LEN_A --max-len-b 10"
}

# official_files FILE ARCHIVE URL: the folder that holds FILE, in OFFICIAL: DATA_DIR, or what ARCHIVE in it holds (a tar
# or zip file, unpacked to OUT_DIR/official); with FETCH=1 the archive is fetched from URL first.
official_files() {
    local file=$1 archive=$2 url=$3
    OFFICIAL=$DATA_DIR
    [ -e "$DATA_DIR/$file" ] && return
    OFFICIAL=$OUT/official
    if [ ! -e "$OFFICIAL/$file" ]; then
        fetch "$archive" "$url" "$file or "
        rm -rf "$OFFICIAL" && mkdir -p "$OFFICIAL"
        case $archive in
            *.zip) python -m zipfile -e "$DATA_DIR/$archive" "$OFFICIAL" ;;
            *) tar -xf "$DATA_DIR/$archive" -C "$OFFICIAL" ;;
        esac
    fi
    [ -e "$OFFICIAL/$file" ] || { echo "$DATA_DIR/$archive must hold $file, but does not. Fetch it again from $url"; exit 2; }
}

fetch() { # FILE URL [INSTEAD]: into DATA_DIR, unless it is there
    [ -e "$DATA_DIR/$1" ] && return
    if [ "${FETCH:-0}" != 1 ]; then
        echo "DATA_DIR must hold ${3:-}$1, but $DATA_DIR does not. Put it there from $2, or set FETCH=1 where there is a network."
        exit 2
    fi
    echo "fetching $2"
    curl --fail --location --output "$DATA_DIR/$1.part" "$2"
    mv "$DATA_DIR/$1.part" "$DATA_DIR/$1"
}

# The paper's own comparison, group `paper`, beside the fair one of `main`: a plain student with a budget of its own
# (PLAIN_UPDATES, PLAIN_LR, PLAIN_WARMUP, and PLAIN_BATCH as options), and the distilled student of `main` against it.
paper_rows() {
    # shellcheck disable=SC2046,SC2086
    system paper-plain group=paper label="plain, the paper's budget" baseline=paper-plain updates="$PLAIN_UPDATES" \
        store= after= -- --kd-weight 0 --lr "$PLAIN_LR" --warmup-updates "$PLAIN_WARMUP" $PLAIN_BATCH
    # shellcheck disable=SC2046
    system paper-distilled group=paper label="distilled, the paper's budget" baseline=paper-plain same=distilled -- $(kd)
}
task_systems() { paper_rows; }

part() { # the options of a preparation that takes a part of the corpus
    printf '%s ' --pairs "$PAIRS" --max-words "$MAX_WORDS" --valid-pairs "$VALID_PAIRS" --test-pairs "$TEST_PAIRS"
}
part_title() {
    printf '%s training pairs' "$PAIRS"
    [ "$MAX_WORDS" = all ] || printf ' of up to %s words' "$MAX_WORDS"
    [ "$TEST_PAIRS" = all ] || printf ', test of %s' "$TEST_PAIRS"
}
recipe() { python "$EXAMPLES/recipes/$1.py" "${@:2}"; } # NAME ARGUMENTS...

# Scores in the paper's way, of all students that are there.
moses_scores() {
    rm -f done/scores-tokenised # students may have come since
    run_step scores-tokenised python "$EXAMPLES/recipes/moses_bleu.py" "$OUT" --language "$TARGET" \
        $([ "$LOWERCASE" = 1 ] && echo --lowercase) "$@"
}
