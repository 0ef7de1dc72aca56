# Shell functions that the examples share: steps that run once, and readable progress. Source it with
# OUT set to the folder for everything that is written.

mkdir -p "$OUT/logs" "$OUT/done" "$OUT/begun"
FAIRSEQ_QUIET=(env PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=true TRANSFORMERS_VERBOSITY=error)

# run_step NAME COMMAND...: run the command unless it finished before; note it in commands.sh and steps.jsonl.
# STDOUT_TO=FILE sends its standard output there, TRAINING=UPDATES shows a training's progress, QUIET=1 nothing.
# RESUMES=1 is for a command that goes on where it was killed: its log goes on too, and its time is that of all its starts.
# With DRY_RUN=1 the command is only shown.
run_step() {
    local name=$1; shift
    local line; printf -v line '%q ' "$@"; line="${line% }${STDOUT_TO:+ > $STDOUT_TO}"
    if done_before "$name" "$line"; then return; fi
    printf '\n== %s\n$ %s\n' "$name" "$line"
    [ -z "${DRY_RUN:-}" ] || return 0
    local log="$OUT/logs/$name.log" begun="$OUT/begun/$name" lock
    mkdir -p "$(dirname "$log")" "$(dirname "$begun")" "$(dirname "$OUT/done/$name")"
    exec {lock}>> "$begun"   # the command inherits it: what outlives a killed script is not started a second time
    if ! flock --nonblock "$lock"; then
        printf '   is running already, from another start of this script; waiting for it\n'
        flock "$lock"
        if done_before "$name" "$line"; then exec {lock}>&-; return; fi
    fi
    local earlier=0 start status=0
    start=$(date +%s)
    [ -n "${RESUMES:-}" ] || : > "$log"
    if [ -n "${RESUMES:-}" ] && [ -s "$begun" ] && [ -e "$log" ]; then earlier=$(earlier_seconds "$begun" "$log" "$line"); fi
    printf '%s %s %s\n' "$earlier" "$start" "$line" >> "$begun"
    if [ -n "${TRAINING:-}" ]; then
        "${FAIRSEQ_QUIET[@]}" "$@" 2>&1 | tee -a "$log" | show_training "$TRAINING" || status=$?
    elif [ -n "${STDOUT_TO:-}" ]; then
        mkdir -p "$(dirname "$STDOUT_TO")"
        "${FAIRSEQ_QUIET[@]}" "$@" > "$STDOUT_TO" 2>> "$log" || status=$?
    elif [ -n "${QUIET:-}" ]; then
        "${FAIRSEQ_QUIET[@]}" "$@" >> "$log" 2>&1 || status=$?
    else
        "${FAIRSEQ_QUIET[@]}" "$@" 2>&1 | tee -a "$log" || status=$?
    fi
    if [ "$status" -ne 0 ]; then
        printf '== %s failed (exit status %s)\nthe end of %s:\n' "$name" "$status" "$log"
        tail -n 20 "$log"
        exit "$status"
    fi
    local seconds=$((earlier + $(date +%s) - start))
    printf '# %s (%s s)\n%s\n' "$name" "$seconds" "$line" >> "$OUT/commands.sh"
    python -c 'import json, sys, time
step, seconds, command = sys.argv[1:]
ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
print(json.dumps({"step": step, "seconds": int(seconds), "command": command, "ended": ended}))' \
        "$name" "$seconds" "$line" >> "$OUT/steps.jsonl"
    printf '%s\n' "$line" > "$OUT/done/$name"
    exec {lock}>&-
}
done_before() { # NAME COMMAND: true, and said, where the step is done
    [ -e "$OUT/done/$1" ] || return 1
    printf '\n== %s: done before\n' "$1"
    if [ -s "$OUT/done/$1" ] && [ "$(cat "$OUT/done/$1")" != "$2" ]; then
        printf '   by another command, whose result is kept (remove done/%s to run it anew):\n' "$1"
        printf '   then: %s\n   now:  %s\n' "$(cat "$OUT/done/$1")" "$2"
    fi
}
earlier_seconds() { # BEGUN LOG COMMAND: of all starts before this one; the last of them ended when its log did
    local before start command ended
    read -r before start command <<< "$(tail -n 1 "$1")"
    [ "$command" = "$3" ] || printf '   was begun by another command, and goes on with this one:\n   then: %s\n' "$command" >&2
    ended=$(stat -c %Y "$2")
    echo $((before + (ended > start ? ended - start : 0)))   # it may have been killed before its first line
}

# One short line for every report of fairseq-train's simple log, as it comes (some awks hold input back).
show_training() {
    local total=$1 line
    field() { [[ $line =~ [\ ,]$1=([0-9.e+-]+) ]] && printf "$2" "${BASH_REMATCH[1]}"; }
    while IFS= read -r line; do
        case $line in
            *'| train_inner |'*)
                printf '   update%s of %s%s%s%s%s\n' "$(field num_updates ' %5d')" "$total" "$(field loss '  loss %s')" \
                    "$(field masked_accuracy '  masked accuracy %s %%')" "$(field kd_loss '  teacher loss %s')" \
                    "$(field wps '  %s tokens/s')" ;;
            *"valid on 'valid' subset"*) printf '   validation:%s\n' "${line#*subset |}" ;;
        esac
    done
}
