# Read by each hook before it runs anything: slurmd runs hooks as root, and whoever can change what they read would be
# root on every node. A hook that finds such a file says so in the node's log and does nothing: it refuses no job and
# drains no node, since the fault is in the installation and would be on all of them. `trainmaster doctor` tells it too.

export PATH="${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin"
refuse() {
    [ -z "$1" ] && return
    logger -t trainmaster -p daemon.err -- "${0##*/}: not run, somebody else can change $1" 2>/dev/null
    exit 0
}
refuse "$(find "${0%/*}/.." ! -type l \( -perm /022 -o ! -user 0 ! -user "$(id -u)" \) -print 2>&1 | head -n 1)"

# The same for what site.sh names, and for each folder above it. In a folder like /tmp only the owner can put another
# file in its place. What is not there yet is not asked about.
changeable() {
    set --
    for path in "$python" "$root$profile" "$root$state"; do
        while [ "${path%/*}" != "$path" ]; do
            [ -e "$path" ] && set -- "$@" "$path"
            path=${path%/*}
        done
    done
    find -L "$@" -maxdepth 0 \( ! -user 0 ! -user "$(id -u)" -o ! \( -type d -perm -1000 \) \
        \( -perm /002 -o -perm /020 ! -group 0 \) \) -print 2>&1 | head -n 1
}
