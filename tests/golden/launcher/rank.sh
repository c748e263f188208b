case $1 in slurm) tm_who=$SLURM_PROCID ;; *) tm_who=$RANK ;; esac
tm_what=rank
shift
mkdir -p "$TRAINMASTER_LOGS"
exec >>"$TRAINMASTER_LOGS/rank$tm_who.out" 2>>"$TRAINMASTER_LOGS/rank$tm_who.$TRAINMASTER_STDERR"
tm_notes=$TRAINMASTER_NOTES.$SLURMD_NODENAME/$TRAINMASTER_ATTEMPT.$TRAINMASTER_CYCLE
tm_tries=0
until [ -r "$tm_notes/$tm_who.env" ] && { echo $$ >"$tm_notes/$tm_who.pid"; } 2>/dev/null; do
    tm_tries=$((tm_tries + 1))
    if [ $tm_tries -gt 600 ]; then
        echo "trainmaster: $SLURMD_NODENAME expects no $tm_what $tm_who in cycle $TRAINMASTER_CYCLE" >&2
        exit 71
    fi
    sleep 0.1
done
. "$tm_notes/$tm_who.env"
exec 9>"$tm_notes/$tm_who.exit"
trap : HUP INT TERM USR1 USR2
"$@" 9>&-
tm_code=$?
echo $tm_code >&9
exit $tm_code
