# Shell functions that the examples share: steps that run once, and readable progress. Source it with
# OUT set to the folder for everything that is written.

mkdir -p "$OUT/logs" "$OUT/done"
FAIRSEQ_QUIET=(env PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=true TRANSFORMERS_VERBOSITY=error)

# run_step NAME COMMAND...: run the command unless it finished before; note it in commands.sh.
# STDOUT_TO=FILE sends its standard output there, TRAINING=UPDATES shows a training's progress.
run_step() {
    local name=$1; shift
    local line; printf -v line '%q ' "$@"; line="${line% }${STDOUT_TO:+ > $STDOUT_TO}"
    if [ -e "$OUT/done/$name" ]; then
        printf '\n== %s: done before\n' "$name"
        return
    fi
    printf '\n== %s\n$ %s\n' "$name" "$line"
    local log="$OUT/logs/$name.log" start=$SECONDS status=0
    if [ -n "${TRAINING:-}" ]; then
        "${FAIRSEQ_QUIET[@]}" "$@" 2>&1 | tee "$log" | show_training "$TRAINING" || status=$?
    elif [ -n "${STDOUT_TO:-}" ]; then
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
    touch "$OUT/done/$name"
}

# One short line for every report of fairseq-train's simple log.
show_training() {
    awk -v total="$1" '
        function value(name,  found) {
            if (match($0, name "=[0-9.eE+-]+")) return substr($0, RSTART + length(name) + 1, RLENGTH - length(name) - 1)
            return ""
        }
        /\| train_inner \|/ {
            printf "   update %5d of %d  loss %s", value("num_updates"), total, value("loss")
            if (value("masked_accuracy") != "") printf "  masked accuracy %s %%", value("masked_accuracy")
            if (value("kd_loss") != "") printf "  teacher loss %s", value("kd_loss")
            printf "  %s tokens/s\n", value("wps"); fflush()
        }
        /valid on .valid. subset/ { sub(/.*subset \| /, "   validation: "); print; fflush() }
    '
}
