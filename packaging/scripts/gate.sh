# -- The gate, asked without the daemon: part of prerm and of postrm.

state=/var/lib/ecluse
removals=/etc/ecluse/removal.log
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

say() { printf 'ecluse: %s\n' "$*" >&2; }

# A chroot shares its kernel with the machine around it: whose table that is, is not for us to say.
is_booted_here() { [ -d /run/systemd/system ]; }

# kernel_gate: `open` (all three base chains accept), `none` (no base chain is there), `unknown` (nft cannot tell),
# `shut` for everything else.
kernel_gate() {
    accepting=0 missing=0
    command -v nft >/dev/null 2>&1 || { echo unknown; return 0; }
    for hook in forward input output; do
        if chain=$(LC_ALL=C nft -t list chain inet ecluse "$hook" 2>&1 </dev/null); then
            case $chain in *'policy accept;'*) accepting=$((accepting + 1)) ;; esac
        else
            case $chain in
                *'No such file or directory'*) missing=$((missing + 1)) ;;
                *) echo unknown; return 0 ;;
            esac
        fi
    done
    if [ "$accepting" = 3 ]; then echo open; elif [ "$missing" = 3 ]; then echo none; else echo shut; fi
}

# recorded_gate: `open`, `none` (nothing was ever recorded), `shut` for everything else, what is damaged too.
recorded_gate() {
    # A closing without the daemon that no daemon has taken up yet.
    if [ -s "$state/by-hand.log" ]; then echo shut; return 0; fi
    if [ ! -e "$state/boot.nft" ]; then
        # A removal has opened the gate by hand, and said so there.
        if [ -e "$state/boot.nft.before-removal" ]; then echo none; return 0; fi
        if [ -n "$(ls -A "$state/generations" 2>/dev/null)" ]; then echo shut; else echo none; fi
        return 0
    fi
    # The daemon's user may write there, and this is root: nothing is followed, nothing waited for.
    if [ ! -f "$state/boot.nft" ] || [ -L "$state/boot.nft" ]; then echo shut; return 0; fi
    # Its last line is the checksum of all before it: what is torn boots closed (boot.sh).
    sum=$(head -n -1 "$state/boot.nft" | sha256sum | cut -d ' ' -f 1)
    if [ "$(tail -n 1 "$state/boot.nft")" != "# sha256: $sum" ]; then echo shut; return 0; fi
    # The second line says it: # levels: {"care": "open", "guests": "open"}
    others=$(sed -n '2s/^# levels: {\(.*\)}$/=\1/p' "$state/boot.nft" | sed 's/"[^"]*": "open"//g; s/[, ]//g')
    if [ "$others" = = ]; then echo open; else echo shut; fi
}

# is_shut: sets $why, in words.
is_shut() {
    why=
    if [ "$(kernel_gate)" = shut ]; then why="the kernel holds a gate that is not open (nft list table inet ecluse)"; fi
    if [ "$(recorded_gate)" = shut ]; then
        why="${why:+$why; }the recorded state is not open ($state)"
    fi
    [ -n "$why" ]
}

# wanted_while_cut: how the person wants it, from the environment; ends the script at a word that is none.
wanted_while_cut() {
    case ${ECLUSE_REMOVE_WHILE_CUT:-} in
        '' | leave-cut | open) ;;
        *)
            say "ECLUSE_REMOVE_WHILE_CUT=$ECLUSE_REMOVE_WHILE_CUT: neither 'leave-cut' nor 'open'. Nothing was changed."
            exit 1
            ;;
    esac
}

# open_by_hand: delete the table, and set the record of a shut gate aside, with a line that says so.
# Should eclused ever run on this directory again, the generations bring back the recorded state.
open_by_hand() {
    # Not in $state: what stands there in its place could be anything, and a purge deletes it.
    mkdir -p "${removals%/*}"
    printf '%s uid %s (login %s): opened by the removal of the package, ECLUSE_REMOVE_WHILE_CUT=open\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(id -u)" "$(cat /proc/self/loginuid 2>/dev/null || echo unknown)" \
        >>"$removals" || say "no line could be written to $removals: write down who decided it"
    sync "$removals" 2>/dev/null || true
    if is_booted_here; then
        delete_table
    fi
}

# end_flowtable: kept flows are judged by the chains again. Without the daemon nobody makes it again. It fails where a process
# owns a table of that name.
end_flowtable() {
    printf '%s\n' 'table inet ecluse_flows {' '}' 'delete table inet ecluse_flows' | nft -f - 2>/dev/null
}

delete_table() {
    # The second lock first, and whatever became of our table: it would drop what passes then.
    printf '%s\n' 'add table netdev ecluse_exit' 'delete table netdev ecluse_exit' | nft -f - 2>/dev/null || true
    if [ "$(kernel_gate)" = none ]; then return 0; fi
    end_flowtable || say "a process owns table inet ecluse_flows: nft list table inet ecluse_flows names it. It is left."
    nft delete table inet ecluse
}

# -- End of that part.
