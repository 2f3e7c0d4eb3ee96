#!/bin/sh
# The site's own ruleset for nftables.service, beside the gate: 'flush ruleset' takes every table but 'inet ecluse' away.
#   site-rules.sh load FILE    what 'nft -f FILE' does, as one transaction
#   site-rules.sh flush        what 'nft flush ruleset' does
# Only a 'flush ruleset' in FILE itself is understood, on a line of its own. One in a file that it includes still takes the
# gate away; the daemon then puts it back, and what passed meanwhile is counted and said.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin

# On one line, so that the line numbers of FILE stay true. Tables that another program owns can't be deleted: nft's flush
# passes them over as well.
others() {
  nft list tables | while read -r word family name; do
    [ "$word $family $name" = 'table inet ecluse' ] && continue
    nft -c "delete table $family $name" 2>/dev/null && printf 'delete table %s %s; ' "$family" "$name"
  done
}

case ${1-} in
  load)
    # Not in a pipe: a failure of sed must not load half a file.
    text=$(sed -E "s/^[[:space:]]*flush[[:space:]]+ruleset[[:space:]]*;?[[:space:]]*(#.*)?\$/$(others)/" "$2") || exit 1
    printf '%s\n' "$text" | nft -f -
    ;;
  flush)
    tables=$(others)
    [ -z "$tables" ] || nft "$tables"
    ;;
  *)
    echo 'site-rules.sh: usage: site-rules.sh load FILE | flush' >&2
    exit 2
    ;;
esac
