#!/bin/sh
# The site's own ruleset for nftables.service, beside the gate: 'flush ruleset' takes every table but 'inet ecluse' and the second
# lock ('netdev ecluse_exit') away.
#   site-rules.sh load FILE    what 'nft -f FILE' does, as one transaction
#   site-rules.sh flush        what 'nft flush ruleset' does
# Only a 'flush ruleset' (of one family, too) in FILE itself is understood, on a line of its own. Where one in a file that it
# includes takes the gate away, the recorded one is loaded at once.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin
gate='table inet ecluse'
second_lock='table netdev ecluse_exit'

say() { echo "site-rules: $*" >&2; }

# The tables that can be deleted, a line of family and name each. A name may hold any byte, a line end too, and this runs as
# root: what is no plain word is never handed on. Tables that another program owns can't be deleted; nft's own flush passes
# them over as well.
others() {
  listed=$(nft list tables) || return 1
  printf '%s\n' "$listed" | while read -r word family name; do
    case "$word $family $name" in "$gate" | "$second_lock") continue ;; esac
    case $word.$family in
      table.ip | table.ip6 | table.inet | table.arp | table.bridge | table.netdev) ;;
      *) continue ;;
    esac
    case $name in
      '' | [!A-Za-z_.]* | *[!A-Za-z0-9_./-]*)
        say "a table of family $family has a name that nft cannot write: it is left alone"
        continue
        ;;
    esac
    nft -c "delete table $family $name" >/dev/null 2>&1 && printf '%s %s\n' "$family" "$name"
  done
}

stands() { nft list tables 2>/dev/null | grep -qx "$gate"; }

OTHERS=$(others) || { say 'the tables could not be listed; nothing was changed'; exit 1; }
export OTHERS

case ${1-} in
  load)
    # Not in a pipe: a failure must not load half a file. All deletions go on the one line, so that line numbers stay true.
    text=$(awk '
      BEGIN { count = split(ENVIRON["OTHERS"], tables, "\n") }
      /^[ \t]*flush[ \t]+ruleset([ \t]+(ip|ip6|inet|arp|bridge|netdev))?[ \t]*;?[ \t]*(#.*)?$/ {
        sub(/#.*/, ""); sub(/;/, "")
        family = $3
        line = ""
        for (i = 1; i <= count; i++) {
          split(tables[i], part, " ")
          if (family == "" || family == part[1]) line = line "delete table " tables[i] "; "
        }
        print line
        next
      }
      { print }' "$2") || exit 1
    stands && stood=yes || stood=
    printf '%s\n' "$text" | nft -f - || exit 1
    if [ -n "$stood" ] && ! stands; then
      say "$2, or a file that it includes, took the gate away; the recorded one is loaded"
      exec sh "${0%/*}/boot.sh"
    fi
    ;;
  flush)
    text=$(printf '%s\n' "$OTHERS" | sed -n 's/^./delete table &/p')
    [ -z "$text" ] || printf '%s\n' "$text" | nft -f -
    ;;
  *)
    say 'usage: site-rules.sh load FILE | flush'
    exit 2
    ;;
esac
