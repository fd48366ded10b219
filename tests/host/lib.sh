# shellcheck shell=bash
# What the scripts of tests/ share; sourced, with TOOL set to the script's name.

die() { echo "$TOOL: $*" >&2; exit 125; }
note() { echo "$TOOL: $*" >&2; }
usage() { sed -n '2,/^set -euo/{/^#/s/^# \?//p}' "$0"; }

cache_dir() { # prints the cache folder, made if it is missing
  local dir
  for dir in ${RKT_TEST_CACHE:+"$RKT_TEST_CACHE"} /var/cache/rkt-tests /var/tmp/rkt-tests; do
    if mkdir -p "$dir" 2>/dev/null && [[ -w $dir ]]; then realpath "$dir"; return; fi
    [[ -z ${RKT_TEST_CACHE:-} ]] || die "cannot write $dir"
  done
  die "cannot write a cache folder; set RKT_TEST_CACHE"
}

mirror() { # the Debian archive that this machine itself uses
  local found
  if [[ -n ${RKT_TEST_MIRROR:-} ]]; then echo "$RKT_TEST_MIRROR"; return; fi
  found=$(
    {
      sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources
      sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
    } 2>/dev/null | grep -m1 -e '/debian/\?$' -e '^mirror+file:.*debian\.list$'
  ) || true
  # cloud images name a file with the list of mirrors
  case $found in mirror+file:*) found=$(grep -v '^#' "${found#mirror+file:}" 2>/dev/null | grep -m1 .) || true ;; esac
  case $found in
    http://* | https://*) echo "${found%%[[:space:]]*}" ;;
    *) die "apt's sources name no Debian archive that can be reached by http; set RKT_TEST_MIRROR to its URL" ;;
  esac
}

debootstrap() { # debootstrap SUITE PACKAGES DIR [MMDEBSTRAP_ARG...]
  local suite=$1 packages=$2 dir=$3
  shift 3
  mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$@" \
    "$suite" "$dir" "$(mirror)" >&2 </dev/null || die "making a Debian $suite root file system failed"
}

start_time() { # of process $1; nothing when it is gone or a zombie
  local stat
  stat=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 0
  [[ $stat == Z* ]] || cut -d' ' -f20 <<<"$stat"
}

machine_has_systemd() { # is PID 1 here systemd, on a unified hierarchy?
  [[ -d /run/systemd/system && $(stat -f -c %T /sys/fs/cgroup 2>/dev/null) == cgroup2fs ]]
}

end_cgroup() { # end_cgroup PATH: kills what is in the v2 cgroup PATH and removes it
  # shellcheck disable=SC2016
  local script='
    if [[ $2 == private ]]; then
      umount -R /sys/fs/cgroup 2>/dev/null
      mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
    fi
    group=/sys/fs/cgroup$1
    for i in {1..200}; do
      [[ -d $group ]] || exit 0
      if grep -q "populated 1" "$group/cgroup.events"; then
        echo 1 >"$group/cgroup.kill"
      else
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
      fi
      sleep 0.05
    done
    exit 1'
  [[ $1 == /?* ]] || return 0
  if machine_has_systemd; then
    bash -c "$script" - "$1" shared || note "cgroup $1 is left"
  else
    unshare -m --propagation private bash -c "$script" - "$1" private || note "cgroup $1 is left"
  fi
}
