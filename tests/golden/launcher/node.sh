tm_who=node
tm_what=launcher
mkdir -p "$TRAINMASTER_LOGS"
exec >>"$TRAINMASTER_LOGS/torchrun$SLURM_PROCID.log" 2>&1
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
export PET_NODE_RANK="$SLURM_PROCID"
exec "$@"
