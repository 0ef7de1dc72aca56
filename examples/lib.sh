# Shell functions that the examples share: steps that run once, and readable progress. Source it with
# OUT set to the folder for everything that is written.

mkdir -p "$OUT/logs" "$OUT/done"
FAIRSEQ_QUIET=(env PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=true TRANSFORMERS_VERBOSITY=error)

# run_step NAME COMMAND...: run the command unless it finished before; note it in commands.sh and steps.jsonl.
# STDOUT_TO=FILE sends its standard output there, TRAINING=UPDATES shows a training's progress, QUIET=1 nothing.
# With DRY_RUN=1 the command is only shown.
run_step() {
    local name=$1; shift
    local line; printf -v line '%q ' "$@"; line="${line% }${STDOUT_TO:+ > $STDOUT_TO}"
    if [ -e "$OUT/done/$name" ]; then
        printf '\n== %s: done before\n' "$name"
        if [ -s "$OUT/done/$name" ] && [ "$(cat "$OUT/done/$name")" != "$line" ]; then
            printf '   by another command, whose result is kept (remove done/%s to run it anew):\n' "$name"
            printf '   then: %s\n   now:  %s\n' "$(cat "$OUT/done/$name")" "$line"
        fi
        return
    fi
    printf '\n== %s\n$ %s\n' "$name" "$line"
    [ -z "${DRY_RUN:-}" ] || return 0
    local log="$OUT/logs/$name.log" start=$SECONDS status=0
    mkdir -p "$(dirname "$log")"
    if [ -n "${TRAINING:-}" ]; then
        "${FAIRSEQ_QUIET[@]}" "$@" 2>&1 | tee "$log" | show_training "$TRAINING" || status=$?
    elif [ -n "${STDOUT_TO:-}" ]; then
        mkdir -p "$(dirname "$STDOUT_TO")"
        "${FAIRSEQ_QUIET[@]}" "$@" > "$STDOUT_TO" 2> "$log" || status=$?
    elif [ -n "${QUIET:-}" ]; then
        "${FAIRSEQ_QUIET[@]}" "$@" > "$log" 2>&1 || status=$?
    else
        "${FAIRSEQ_QUIET[@]}" "$@" || status=$?
    fi
    if [ "$status" -ne 0 ]; then
        printf '== %s failed (exit status %s)\n' "$name" "$status"
        [ -e "$log" ] && { printf 'the end of %s:\n' "$log"; tail -n 20 "$log"; }
        exit "$status"
    fi
    printf '# %s (%s s)\n%s\n' "$name" "$((SECONDS - start))" "$line" >> "$OUT/commands.sh"
    python -c 'import json, sys, time
step, seconds, command = sys.argv[1:]
ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
print(json.dumps({"step": step, "seconds": int(seconds), "command": command, "ended": ended}))' \
        "$name" "$((SECONDS - start))" "$line" >> "$OUT/steps.jsonl"
    mkdir -p "$(dirname "$OUT/done/$name")" && printf '%s\n' "$line" > "$OUT/done/$name"
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
