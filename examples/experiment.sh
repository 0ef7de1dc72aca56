# The chain of an experiment, shared by examples/*/run.sh: data, teachers, stores, students, outputs, report, each
# made once and only when a student asks for it. The folder that comes out is what `fairseq-bert-kd report` reads.
#
# A task's run.sh sets TASK, SOURCE and TARGET (languages), defines `title`, `prepare_text` (which writes
# text/{train,valid,test}.LANGUAGE) and one function of settings for each size (`size_laptop`, `size_gpu`,
# `size_paper`), and ends in `. experiment.sh "$@"`. systems.sh names the students. It may also define `after_tokenize`
# and `after_students` (further steps), `task_systems` (further rows), and set TEST_SETS (names in text/ beside `test`).
#
# FROM=OUT_DIR takes data, teachers and stores from another size of the same task, so that only students are trained.
# DRY_RUN=1 prepares the text and shows the commands without running them; REPORT=0 leaves the report out.

usage() { sed -n '2,/^set -euo/p' "$0" | sed -n 's/^# \{0,1\}//p'; exit 2; }
default() { # NAME=VALUE...: settings that the environment does not give
    local setting name
    for setting in "$@"; do
        name=${setting%%=*}
        [ -n "${!name+given}" ] || declare -g "$setting"
    done
}
[ $# -ge 3 ] || usage
EXAMPLES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DATA_DIR=$(cd "$1" && pwd)
TEACHER=$([ -d "$2" ] && cd "$2" && pwd || printf '%s' "$2")
mkdir -p "$3" && OUT=$(cd "$3" && pwd)
shift 3
ROWS=("$@"); [ $# -gt 0 ] || ROWS=(main)
SIZE=${SIZE:-laptop}
declare -F "size_$SIZE" > /dev/null || { echo "SIZE=$SIZE is not among $(declare -F | sed -n 's/.* size_//p' | paste -sd' ')"; exit 2; }

transformer() { # LAYERS DIM FFN_DIM HEADS: the options of a Transformer with two sides alike
    local side
    for side in encoder decoder; do
        printf -- '--%s-layers %s --%s-embed-dim %s --%s-ffn-embed-dim %s --%s-attention-heads %s ' \
            $side "$1" $side "$2" $side "$3" $side "$4"
    done
}
transformer_student() { # LAYERS DIM FFN_DIM HEADS: a size's student, where the environment names no other architecture
    [ -n "${STUDENT_ARCH+given}" ] || default STUDENT_MODEL="$(transformer "$@")"
}
"size_$SIZE"
default SEEDS='1 2 3' JOBS=1 REPORT=1 TEST_SETS=test CONTINUE_FROM='' METRIC=bleu LOWERCASE=1 BLEU_TOKENIZE=13a MAX_LEN_A=1.2 \
    STUDENT_ARCH=distilled_transformer_small STUDENT_SCHEDULE=inverse_sqrt STUDENT_EXTRA='--dropout 0.2' TEACHER_EXTRA='' TEACHER_NAME="$(basename "$TEACHER")"
default STUDENT_MODEL="$([ "$STUDENT_ARCH" != distilled_transformer_small ] || transformer 3 128 512 4)"
default DECODE="--beam 5 --max-len-a $MAX_LEN_A --max-len-b 10"
TITLE=$(title)
. "$EXAMPLES/lib.sh"
cd "$OUT"
PLUGIN=$(fairseq-bert-kd --user-dir)
CORES=$(getconf _NPROCESSORS_ONLN)
check_report() { # what the last step imports, before hours of training
    python - "$METRIC" <<'PY'
import sys
from fairseq_bert_kd.compat import import_extra

try:
    for module in ("jinja2", "matplotlib", *["rouge_score.rouge_scorer"] * (sys.argv[1] == "rouge")):
        import_extra(module)
except ImportError as error:
    sys.exit(f"{error}\nor leave the report out: REPORT=0")
PY
}
[ "$REPORT" = 0 ] || [ -n "${DRY_RUN:-}" ] || check_report
THREADS=${OMP_NUM_THREADS:-$((CORES / JOBS > 0 ? CORES / JOBS : 1))}   # of a student

# ---- what the folder is ------------------------------------------------------------------------------------
describe_experiment() {
    python - "$@" <<'PY'
import json, os, subprocess, sys
import fairseq_bert_kd

def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, shell=True).stdout.split("\n")[0].strip()
    except subprocess.CalledProcessError:
        return ""

cpu = first_line("lscpu | sed -n 's/^Model name: *//p'") or "unknown processor"
gpus = [line for line in first_line("nvidia-smi --query-gpu=name --format=csv,noheader | paste -sd,").split(",") if line]
hardware = f"{os.cpu_count()} CPU cores ({cpu}), " + (f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU")
code = first_line(f"git -C '{os.path.dirname(fairseq_bert_kd.__file__)}' rev-parse --short=12 HEAD 2>/dev/null")
task = os.environ["TASK"]
record = {
    "format": 1, "task": task, "size": os.environ["SIZE"], "title": os.environ["TITLE"],
    "source_lang": os.environ["SOURCE"], "target_lang": os.environ["TARGET"],
    "metric": os.environ["METRIC"], "lowercase": os.environ["LOWERCASE"] == "1",
    "bleu_tokenize": os.environ["BLEU_TOKENIZE"], "baseline": "plain", "main": "distilled",
    "teacher": os.environ["TEACHER_NAME"], "hardware": hardware, "code": code or fairseq_bert_kd.__version__,
    "command": f"SIZE={os.environ['SIZE']} {'FROM=OTHER_OUT_DIR ' if os.environ.get('FROM') else ''}"
               f"bash examples/{task}/run.sh DATA_DIR TEACHER_DIR OUT_DIR [ROW...]",
}
path = "experiment.json"
if os.path.exists(path):
    before = json.load(open(path, encoding="utf-8"))
    kept = ("task", "size", "title", "source_lang", "target_lang", "teacher", "metric", "lowercase", "bleu_tokenize")
    differing = [key for key in kept if before[key] != record[key]]
    if differing:
        sys.exit(f"{os.getcwd()} holds {before['title']!r} and differs in {', '.join(differing)}; give another OUT_DIR")
else:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, ensure_ascii=False)
        file.write("\n")
PY
}
export TASK TITLE SIZE SOURCE TARGET METRIC LOWERCASE BLEU_TOKENIZE TEACHER_NAME
describe_experiment

take_from() { # OUT_DIR: everything but students
    local other name
    other=$(cd "$1" && pwd)
    python - "$other/experiment.json" <<'PY'
import json, sys
theirs, ours = (json.load(open(path, encoding="utf-8")) for path in (sys.argv[1], "experiment.json"))
differing = [key for key in ("task", "title", "teacher") if theirs[key] != ours[key]]
if differing:
    sys.exit(f"FROM={sys.argv[1].removesuffix('/experiment.json')} differs in {', '.join(differing)}; leave FROM out")
PY
    mkdir -p done logs
    for name in text pieces data-bin data-separate done/tokenize done/preprocess done/preprocess-separate logs/preprocess.log; do
        [ ! -e "$other/$name" ] || { rm -rf "$name"; cp -r "$other/$name" "$name"; }
    done
    for name in "$other"/teacher* "$other"/done/teacher* "$other"/done/dump* "$other"/logs/teacher*.log; do
        [ ! -e "$name" ] || { rm -rf "${name#"$other"/}"; cp -r "$name" "${name#"$other"/}"; }
    done
    grep -Ev '"step": "(students|outputs|beam|preprocess-beam)' "$other/steps.jsonl" > steps.jsonl || true
}
[ -z "${FROM:-}" ] || [ -e steps.jsonl ] || take_from "$FROM"

# ---- data: `data-bin` with one dictionary of both languages, `data-separate` with two, `data-beam` -----------
binarise() { # FOLDER PIECES OPTIONS...: PIECES holds train, valid and test
    local folder=$1 pieces=$2 set tests=; shift 2
    for set in $TEST_SETS; do tests+=${tests:+,}$pieces/$set; done
    QUIET=1 run_step "preprocess${folder#data-bin}" fairseq-preprocess --user-dir "$PLUGIN" --task translation_with_teacher \
        --source-lang "$SOURCE" --target-lang "$TARGET" --trainpref "$pieces/train" --validpref "$pieces/valid" \
        --testpref "$tests" "$@" --destdir "$folder" --workers "$CORES"
}
declare -A READY=()
once() { [ -z "${READY[$1]:-}" ] && READY[$1]=1; }   # true the first time
need_data() {
    once "data $1" || return 0
    if once tokenize; then
        local files=() set
        for set in train valid $TEST_SETS; do files+=("$set.$SOURCE" "$set.$TARGET"); done
        mkdir -p pieces
        run_step tokenize fairseq-bert-kd tokenize --tokenizer "$TEACHER" --overwrite \
            --input "${files[@]/#/text/}" --output "${files[@]/#/pieces/}"
        if declare -F after_tokenize > /dev/null; then after_tokenize; fi
    fi
    case $1 in
        data-bin) binarise data-bin pieces --joined-dictionary ;;
        data-separate) binarise data-separate pieces ;;
        data-beam) need_beam_data ;;
        *) echo "no data folder is called '$1'"; exit 2 ;;
    esac
}
# Sequence-level distillation (Kim & Rush, 2016): the plain student's own beam search replaces the training targets.
need_beam_data() {
    local teacher_student=students/plain.${SEEDS%% *}
    need_data data-bin
    STDOUT_TO=outputs/beam.train.out run_step beam fairseq-generate data-bin --user-dir "$PLUGIN" \
        --task translation_with_teacher --path "$teacher_student/checkpoint_best.pt" --gen-subset train \
        $DECODE --max-tokens 8192
    local set
    if [ -z "${DRY_RUN:-}" ]; then
        mkdir -p pieces-beam
        cp "pieces/train.$SOURCE" pieces-beam/
        for set in valid $TEST_SETS; do cp "pieces/$set.$SOURCE" "pieces/$set.$TARGET" pieces-beam/; done
        grep '^H-' outputs/beam.train.out | cut -c3- | sort -n -k1,1 | cut -f3 > pieces-beam/train."$TARGET"
    fi
    binarise data-beam pieces-beam --srcdict "data-bin/dict.$SOURCE.txt" --tgtdict "data-bin/dict.$TARGET.txt"
}

# ---- teachers and stores ------------------------------------------------------------------------------------
declare -A TEACHER_DATA=() TEACHER_OPTIONS=() STORE_TEACHER=() STORE_OPTIONS=()
teacher() { TEACHER_DATA[$1]=$2; TEACHER_OPTIONS[$1]="${*:3}"; }      # NAME DATA OPTIONS...
store() { STORE_TEACHER[$1]=$2; STORE_OPTIONS[$1]="${*:3}"; }         # NAME TEACHER OPTIONS...

need_teacher() {
    once "teacher $1" || return 0
    local name=$1 data=${TEACHER_DATA[$1]}
    need_data "$data"
    # shellcheck disable=SC2086
    RESUMES=1 TRAINING=$TEACHER_UPDATES run_step "$name" fairseq-train "$data" --user-dir "$PLUGIN" \
        --task conditional_masked_lm --criterion conditional_masked_lm --arch hf_masked_lm --teacher-model "$TEACHER" \
        --optimizer adam --adam-betas '(0.9,0.98)' --weight-decay 0.01 --clip-norm 1.0 \
        --lr "$TEACHER_LR" --lr-scheduler polynomial_decay --warmup-updates "$TEACHER_WARMUP" \
        --total-num-update "$TEACHER_UPDATES" --max-update "$TEACHER_UPDATES" --max-tokens "$TEACHER_TOKENS" \
        --validate-interval 10000 --validate-interval-updates "$TEACHER_VALIDATE" \
        --save-interval 10000 --save-interval-updates "$TEACHER_VALIDATE" --keep-interval-updates 1 --no-epoch-checkpoints \
        --save-dir "$name" --log-interval 20 --log-format simple --seed 1 $TEACHER_EXTRA ${TEACHER_OPTIONS[$name]}
}
need_store() { # NAME
    once "store $1" || return 0
    local name=$1 teacher=${STORE_TEACHER[$1]} step
    need_teacher "$teacher"
    local data=${TEACHER_DATA[$teacher]} named=()
    [ "$name" = default ] || named=(--name "$name")
    [ "$data" = data-separate ] && named=()
    step=dump-$name
    # shellcheck disable=SC2086
    RESUMES=1 run_step "${step%-default}" fairseq-bert-kd dump "$data" --path "$teacher/checkpoint_best.pt" "${named[@]}" \
        --overwrite ${STORE_OPTIONS[$name]}
}

# ---- students -----------------------------------------------------------------------------------------------
declare -a SYSTEMS=()
declare -A GROUP=() LABEL=() VALUE=() BASELINE=() DATA=() STORE=() MODEL=() OPTIONS=() UPDATES=() AFTER=() SAME=()
# system NAME key=value... -- OPTIONS...: keys are group, label, value, baseline, data, store ("" for none), updates,
# model (options that name the architecture and its sizes; default STUDENT_ARCH and STUDENT_MODEL),
# after (the system whose best checkpoint of the same seed it continues from; "" for none, default CONTINUE_FROM) and
# same (the system whose run it is, compared here with another baseline)
system() {
    local name=$1; shift
    SYSTEMS+=("$name"); GROUP[$name]=main LABEL[$name]=$name VALUE[$name]='' BASELINE[$name]=plain
    DATA[$name]=data-bin STORE[$name]=default MODEL[$name]="--arch $STUDENT_ARCH $STUDENT_MODEL" UPDATES[$name]=$STUDENT_UPDATES AFTER[$name]=$CONTINUE_FROM SAME[$name]=''
    while [ "$1" != -- ]; do
        case $1 in
            group=*) GROUP[$name]=${1#*=} ;; label=*) LABEL[$name]=${1#*=} ;; value=*) VALUE[$name]=${1#*=} ;;
            baseline=*) BASELINE[$name]=${1#*=} ;; data=*) DATA[$name]=${1#*=} ;; store=*) STORE[$name]=${1#*=} ;; model=*) MODEL[$name]=${1#*=} ;;
            updates=*) UPDATES[$name]=${1#*=} ;; after=*) AFTER[$name]=${1#*=} ;; same=*) SAME[$name]=${1#*=} ;;
            *) echo "system $name: what is '$1'?"; exit 2 ;;
        esac
        shift
    done
    shift
    OPTIONS[$name]=$*
}

describe_student() { # SYSTEM SEED
    local name=$1 model=
    [ "${MODEL[$name]}" = "--arch $STUDENT_ARCH $STUDENT_MODEL" ] || model="${MODEL[$name]} "
    python -c 'import json, sys
keys = ("system", "seed", "label", "group", "value", "baseline", "updates", "options", "store", "teacher", "continues")
record = dict(zip(keys, sys.argv[2:], strict=True))
record |= {"seed": int(record["seed"]), "updates": int(record["updates"])}
record |= {key: record[key] or None for key in ("store", "teacher", "continues")}
json.dump(record, open(sys.argv[1], "w", encoding="utf-8"), indent=1, ensure_ascii=False)' "students/$name.$2/run.json" \
        "$name" "$2" "${LABEL[$name]}" "${GROUP[$name]}" "${VALUE[$name]}" "${BASELINE[$name]}" "${UPDATES[$name]}" \
        "$model${OPTIONS[$name]}" "${STORE[$name]}" "${STORE[$name]:+${STORE_TEACHER[${STORE[$name]:-default}]}}" "${AFTER[$name]}"
}
train_student() { # SYSTEM SEED: training, then the outputs of validation and test sets
    local name=$1 seed=$2 run=students/$1.$2 more=() schedule=(--lr-scheduler "$STUDENT_SCHEDULE")
    [ "$STUDENT_SCHEDULE" = inverse_sqrt ] || schedule+=(--total-num-update "${UPDATES[$name]}")
    [ -z "${STORE[$name]}" ] || [ "${DATA[$name]}" = data-separate ] || more=(--kd-stores "${STORE[$name]}")
    [ -z "${AFTER[$name]}" ] || more+=(--finetune-from-model "students/${AFTER[$name]}.$seed/checkpoint_best.pt")
    # shellcheck disable=SC2086
    RESUMES=1 QUIET=1 run_step "$run" fairseq-train "${DATA[$name]}" --user-dir "$PLUGIN" \
        --task translation_with_teacher ${MODEL[$name]} \
        --criterion label_smoothed_cross_entropy_with_distillation --label-smoothing 0.1 "${more[@]}" \
        --optimizer adam --adam-betas '(0.9,0.98)' --clip-norm 5.0 \
        --lr "$STUDENT_LR" "${schedule[@]}" --warmup-updates "$STUDENT_WARMUP" \
        --max-update "${UPDATES[$name]}" --max-tokens "$STUDENT_TOKENS" --seed "$seed" \
        --eval-bleu --eval-bleu-args "{\"beam\": 1, \"max_len_a\": $MAX_LEN_A, \"max_len_b\": 10}" \
        --best-checkpoint-metric bleu --maximize-best-checkpoint-metric \
        --validate-interval 10000 --validate-interval-updates "$STUDENT_VALIDATE" \
        --save-interval 10000 --save-interval-updates "$STUDENT_VALIDATE" --keep-interval-updates 1 --no-epoch-checkpoints \
        --save-dir "$run" --log-interval 50 --log-format simple $STUDENT_EXTRA ${OPTIONS[$name]}
    local set number=
    decode valid valid
    for set in $TEST_SETS; do decode "$set" "test$number"; number=$((number + 1)); done
}
decode() { # SET SUBSET: of train_student's student; fairseq calls several test sets test, test1, ...
    # shellcheck disable=SC2086
    STDOUT_TO=outputs/$name.$seed.$1.out run_step "outputs/$name.$seed.$1" fairseq-generate "${DATA[$name]}" \
        --user-dir "$PLUGIN" --task translation_with_teacher --path "$run/checkpoint_best.pt" --gen-subset "$2" \
        $DECODE --max-tokens 8192 --bpe hf_tokenizer --hf-tokenizer "$TEACHER"
}
share_student() { # SYSTEM SEED: the run of another system under its own name, in relative links
    local name=$1.$2 other=${SAME[$1]}.$2 file set
    mkdir -p logs/students outputs
    ln -sfn "../$other/checkpoint_best.pt" "students/$name/checkpoint_best.pt"
    ln -sfn "$other.log" "logs/students/$name.log"
    for set in valid $TEST_SETS; do ln -sfn "$other.$set.out" "outputs/$name.$set.out"; done
}
start_student() { # SYSTEM SEED: once, after the one whose checkpoint or run it needs
    local name=$1 seed=$2 earlier=${SAME[$1]:-${AFTER[$1]}}
    once "student $name.$seed" || return 0
    if [ -n "$earlier" ]; then
        start_student "$earlier" "$seed"
        [ -e "done/outputs/$earlier.$seed.test" ] || wait_for_students 1
    fi
    mkdir -p "students/$name.$seed"
    # what is trained already stays described as it was trained
    if [ ! -e "students/$name.$seed/run.json" ] || { [ ! -e "done/students/$name.$seed" ] && [ -z "${DRY_RUN:-}" ]; }; then
        describe_student "$name" "$seed"
    fi
    if [ -n "${SAME[$name]}" ]; then share_student "$name" "$seed"; return; fi
    if [ "${DATA[$name]}" = data-beam ]; then
        wait_for_students 1; need_data data-beam
    fi
    wait_for_students "$JOBS"
    OMP_NUM_THREADS=$THREADS train_student "$name" "$seed" &
}

# run_rows ROW...: a row is a system, a group of systems, `all`, or `store:NAME` for a teacher and its store alone.
# Baselines come with what is compared with them.
run_rows() {
    local -A wanted=()
    local row name seed found earlier
    for row in "$@"; do
        if [[ $row = store:* ]] && [ -n "${STORE_TEACHER[${row#store:}]:-}" ]; then need_store "${row#store:}"; continue; fi
        found=
        for name in "${SYSTEMS[@]}"; do
            if [ "$row" = all ] || [ "$row" = "$name" ] || [ "$row" = "${GROUP[$name]}" ]; then
                found=1 wanted[$name]=1 wanted[${BASELINE[$name]}]=1
                for earlier in "$name" "${BASELINE[$name]}"; do
                    earlier=${SAME[$earlier]:-${AFTER[$earlier]}}
                    [ -z "$earlier" ] || wanted[$earlier]=1
                done
            fi
        done
        [ -n "$found" ] || { echo "no system and no group is called '$row'; there are: ${SYSTEMS[*]}"; exit 2; }
    done
    for name in "${SYSTEMS[@]}"; do
        [ -n "${wanted[$name]:-}" ] && [ "${DATA[$name]}" != data-beam ] && need_data "${DATA[$name]}"
        [ -n "${wanted[$name]:-}" ] && [ -n "${STORE[$name]}" ] && need_store "${STORE[$name]}"
    done
    for seed in $SEEDS; do
        for name in "${SYSTEMS[@]}"; do
            [ -z "${wanted[$name]:-}" ] || start_student "$name" "$seed"
        done
    done
    wait_for_students 1
    for seed in $SEEDS; do   # those that failed
        for name in "${SYSTEMS[@]}"; do
            [ -n "${wanted[$name]:-}" ] && [ -z "${SAME[$name]}${DRY_RUN:-}" ] || continue
            [ -e "done/outputs/$name.$seed.${TEST_SETS%% *}" ] || { echo "student $name.$seed failed, see $OUT/logs"; exit 1; }
        done
    done
}
wait_for_students() { # NUMBER: until fewer are running; run_rows tells of those that failed when the others have ended
    while (($(jobs -rp | wc -l) >= $1)); do wait -n || true; done
}

. "$EXAMPLES/systems.sh"
[ -e text/ready ] || { mkdir -p text; prepare_text; touch text/ready; }
run_rows "${ROWS[@]}"
if declare -F after_students > /dev/null; then after_students; fi
if [ "$REPORT" != 0 ] && [ -z "${DRY_RUN:-}" ]; then
    fairseq-bert-kd report "$OUT" --out "$OUT/report.html" --results "$OUT/results.json" --figures "$OUT/figures" --overwrite
    printf '\nThe report: %s\n' "$OUT/report.html"
fi
