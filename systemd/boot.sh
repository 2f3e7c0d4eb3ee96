#!/bin/sh
# Put the recorded gate into the kernel before any link is up (ecluse-boot.service). No Python, nothing that may wait.
#
# What it loads, the first that is whole and that the kernel takes:
#   boot.nft     the recorded state (and then boot-lock.nft, the second lock, if that stood); complete only with its
#                checksum, because a torn one could load and leave everything open
#   closed.nft   the site's lifeline alone
#   the built-in closed ruleset of the package, which knows no site
# The latter two only where this gateway was in service before. Then a note tells the daemon that what it finds in the kernel
# is a precaution and not somebody's command.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin
state=${ECLUSE_STATE_DIR:-/var/lib/ecluse}
learned=${ECLUSE_DNS_STATE_DIR:-/var/lib/ecluse-dns}/learned.nft
in_service=/etc/ecluse/in-service
built_in=${ECLUSE_BUILT_IN:-/usr/lib/ecluse/closed.nft}
note=/run/ecluse/closed-at-boot
most=67108864 # bytes, as in state/durable_files.py
# Seconds for each step: whatever stands in the place of a file, the machine boots, and shut.
patience=60

say() {
  echo "ecluse-boot: $*" >&2
  echo "<2>ecluse-boot: $*" 2>/dev/null >/dev/kmsg
}

plain() {
  [ -f "$1" ] && [ ! -L "$1" ] && [ "$(stat -c %s "$1")" -le "$most" ]
}

sum() { timeout "$patience" sha256sum | cut -d ' ' -f 1; }

# The last line is the checksum of all before it; an included program is named by its own.
whole() {
  why='is missing'
  [ -e "$1" ] || return 1
  why='is not what was written'
  plain "$1" || return 1
  [ "$(tail -n 1 "$1")" = "# sha256: $(head -n -1 "$1" | sum)" ] || return 1
  program=$(sed -n 's/^include "\(.*\)"$/\1/p' "$1")
  [ -z "$program" ] && return 0
  why='includes a program that is missing or not what was written'
  digest=${program#"$state/ruleset/program-"}
  digest=${digest%.nft}
  case $digest in '' | *[!0-9a-f]*) return 1 ;; esac
  plain "$program" && [ "$digest" = "$(sum <"$program")" ]
}

# A file with the program that it includes, without the lines that end the flowtable or the second lock.
alone() {
  program=$(sed -n 's/^include "\(.*\)"$/\1/p' "$1")
  { sed '/^include "/,$d' "$1"; [ -z "$program" ] || { cat "$program"; sed '1,/^include "/d' "$1"; }; } |
    sed -e '/^table inet ecluse_flows {$/,/^delete table inet ecluse_flows$/d' -e '/^\(add\|delete\) table netdev ecluse_exit$/d'
}

load() {
  trouble=$(LC_ALL=C timeout "$patience" nft -f "$1" 2>&1) && return 0
  case $trouble in
    # A process owns a table of these names (while the machine is up: site-rules.sh): the gate comes without them.
    *'Operation not permitted'*) alone "$1" | timeout "$patience" nft -f - 2>/dev/null && return 0 ;;
  esac
  why="is refused by the kernel: $(echo "$trouble" | head -n 1)"
  return 1
}

# What the DNS gate had learned (dnsproxy/learned_store.py), so that services known by wildcards are there before its process is.
# It is another user's file: nothing but lines of this one form is taken from it, and of a set no more than goes into it.
# Set by set: one may be gone since.
recall() {
  plain "$learned" || return 0
  form='^add element inet ecluse (dns_(svc_[a-z0-9_]+|all)_[46]) \{ [0-9a-f.:]+ expires [0-9]+s \}( # [a-z0-9.*,_-]+)?$'
  for set in $(sed -nE "s/$form/\1/p" "$learned" | sort -u); do
    grep -E "$form" "$learned" | grep -F " $set " | head -n 65535 | nft -f - 2>/dev/null ||
      say "what the DNS gate had learned for $set was not taken: names are asked for again"
  done
  for digit in 4 6; do # the second lock has a copy, where it lets out what names stand for
    nft list set netdev ecluse_exit "learned$digit" >/dev/null 2>&1 || continue
    copy="s/^add element inet ecluse [a-z0-9_]+_$digit \{ ([0-9a-f.:]+) .*/add element netdev ecluse_exit learned$digit { \\1 }/p"
    grep -E "$form" "$learned" | sed -nE "$copy" | sort -u | head -n 65535 | nft -f - 2>/dev/null ||
      say "the second lock does not know all that the DNS gate had learned, until the daemon is up"
  done
}

# All of it in its time: that file may name a million sets, and the machine must boot.
if [ "${1:-}" = recall ]; then
  recall
  exit 0
fi

# What stands while the machine is up is newer than any file. At a boot it can only be what somebody saved with the site's rules.
if nft list chain inet ecluse forward >/dev/null 2>&1 && systemctl --quiet is-active sysinit.target 2>/dev/null; then
  exit 0
fi
if [ ! -e "$in_service" ] && [ ! -e "$state/boot.nft" ] && [ ! -e "$state/closed.nft" ]; then
  exit 0 # the daemon never ran here: there is nothing to hold
fi
if whole "$state/boot.nft" && load "$state/boot.nft"; then
  # The second lock stands beside it: a refusal costs the second lock alone.
  lock=$state/boot-lock.nft
  if [ -e "$lock" ] && ! { whole "$lock" && load "$lock"; }; then
    say "the second lock is not there until the daemon has made it ($lock $why); the recorded gate stands"
  fi
  timeout "$patience" /bin/sh "$0" recall ||
    say "not all that the DNS gate had learned was taken within $patience s: names are asked for again"
  exit 0
fi
told="$state/boot.nft $why"
for file in "$state/closed.nft" "$built_in"; do
  if [ "$file" = "$built_in" ] || whole "$file"; then
    if load "$file"; then
      told="$told; $file was loaded instead"
      mkdir -p "${note%/*}"
      rm -f "$note" # the folder's owner may have put a link there
      (set -C && echo "$told" >"$note")
      say "$told, until the daemon has read its records"
      exit 0
    fi
  fi
  told="$told; $file $why"
done
say "NOTHING COULD BE LOADED, THE GATE MAY BE OPEN: $told. Pull the cable, or: ip link set dev NAME down"
exit 1
