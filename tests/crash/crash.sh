#!/bin/bash
# Runs in the test host.  crash.sh CASE POINT: one command of rkt is killed at a
# failpoint, then everything else has to work and nothing may stay.
#   crash.sh rounds N SEED: N starts of a service, killed at random moments.
#   crash.sh fetch_rounds N SEED: N fetches of images made of layers, likewise.
# Exit status 3: the command did not pass the point.
set -uo pipefail

DATA=/var/lib/rkt
IMG=/var/tmp/img/busybox.aci
URL=http://127.0.0.1:8099/busybox.aci
LAYOUT=oci:/var/tmp/img/layout:1
ARCHIVE=oci-archive:/var/tmp/img/layered.tar.gz:1
LARGE=oci:/var/tmp/img/large:1
REGISTRY=docker://127.0.0.1:8098/layered:1
POD=crash
UNIT=rkt@$POD
DROPIN=/run/systemd/system/$UNIT.service.d
OUT=$(mktemp)
KEPT='' # files of the store at rest, where a case begins with an empty one
trap 'rm -f "$OUT" "$OUT".*' EXIT

fail() { echo "crash.sh: $*"; [[ ! -s $OUT ]] || sed 's/^/    /' "$OUT"; exit 1; }
must() { "$@" >"$OUT" 2>&1 </dev/null || fail "status $?: $*"; }
gc() { rkt gc --grace-period=0 --expire-prepared=0; }
layered() { rkt --insecure-options=image,http "$@"; } # nobody signs the images made of layers here
fresh() { # begin with an empty store
  rm -rf $DATA/cas/* && must systemd-tmpfiles --create && KEPT=1
}
render_again() { find $DATA/cas/tree -mindepth 1 -maxdepth 1 -exec rm -rf {} +; }

killed() { # killed POINT COMMAND...: 137 is what is wanted, 0 means that the point is elsewhere
  local point=$1 status=0
  shift
  if [[ -z $point ]]; then # what things look like when nothing is killed
    must "$@"
    return
  fi
  RKT_FAILPOINT=$point "$@" >"$OUT" 2>&1 </dev/null || status=$?
  case $status in 137) ;; 0) exit 3 ;; *) fail "status $status instead of 137 (SIGKILL): $*" ;; esac
}

declare_pod() { # declare_pod RKT_OPTIONS_JSON
  mkdir -p /etc/rkt/pods
  printf '{"apps": [{"name": "app", "image": "%s", "exec": ["/bin/sleep", "100000"]}], "rkt": %s}\n' "$IMG" "$1" >/etc/rkt/pods/$POD.json
  must systemctl daemon-reload
}

environment() { # environment POINT|'': of the service
  rm -rf "$DROPIN"
  if [[ -n $1 ]]; then
    mkdir -p "$DROPIN"
    printf '[Service]\nEnvironment=RKT_FAILPOINT=%s\n' "$1" >"$DROPIN/failpoint.conf"
  fi
  must systemctl daemon-reload
}

unit_killed() { # unit_killed POINT: at start
  environment "$1"
  if systemctl start "$UNIT" >"$OUT" 2>&1; then environment ''; exit 3; fi
  environment ''
  [[ $(systemctl show -P Result "$UNIT") == signal && $(systemctl show -P ExecMainStatus "$UNIT") == 9 ]] ||
    fail "$UNIT did not die of SIGKILL: $(systemctl show -p Result,ExecMainStatus "$UNIT")"
}

unit_works() {
  systemctl reset-failed "$UNIT" 2>/dev/null
  must systemctl start "$UNIT"
  must systemctl is-active "$UNIT"
  must systemctl stop "$UNIT"
}

dead_pod() { # a pod that ended without a word, with a network
  RKT_FAILPOINT=stage1/exec rkt run --net=default "$IMG" --exec /bin/true >"$OUT" 2>&1 </dev/null
  [[ $? == 137 ]] || fail "making a dead pod"
  # What joins its networks lives on for a moment.
  local pod
  pod=$DATA/pods/run/$(uuid_in run)
  for _ in {1..200}; do [[ ! -s $pod/net-info.json ]] || break; sleep 0.05; done
  must flock -w 10 "$pod/net" true
}

uuid_in() { find $DATA/pods/"$1" -mindepth 1 -maxdepth 1 -printf '%f\n' | head -1; }

# Each case: what is there before, what is killed, what has to work afterwards.
case_fetch() {
  fresh
  started
  killed "$1" rkt fetch $IMG
  next rkt fetch $IMG
}
case_fetch_url() {
  fresh
  busybox httpd -p 127.0.0.1:8099 -h "${IMG%/*}"
  trap 'pkill -xf "busybox httpd -p 127.0.0.1:8099 -h ${IMG%/*}"; rm -f "$OUT"' EXIT
  started
  killed "$1" rkt fetch $URL
  next rkt fetch $URL
}
fetch_layered() { fresh; started; killed "$1" layered fetch "$2"; next layered fetch "$2"; }
case_fetch_layout() { fetch_layered "$1" $LAYOUT; }
case_fetch_archive() { fetch_layered "$1" $ARCHIVE; }
case_fetch_registry() { fetch_layered "$1" $REGISTRY; }
case_fetch_shared() { # a second image on the same base
  fresh
  must layered fetch $LAYOUT
  started
  killed "$1" layered fetch $LARGE
  next layered fetch $LARGE
  must layered prepare $LAYOUT
}
case_fetch_update() { # the source has another image now
  fresh
  must layered fetch $LAYOUT
  started
  killed "$1" layered fetch --pull-policy=update $REGISTRY
  next layered fetch --pull-policy=update $REGISTRY
}
case_render_layered() {
  fresh
  must layered fetch $LAYOUT
  render_again
  started
  killed "$1" layered prepare $LAYOUT
  next layered prepare $LAYOUT
}
case_prepare_layered() { fresh; must layered fetch $LAYOUT; started; killed "$1" layered prepare $LAYOUT; next layered prepare $LAYOUT; }
case_run_layered() { fresh; started; killed "$1" layered run --net=none $LAYOUT; next layered run --net=none $LAYOUT; }
case_run_layered_copy() { fresh; started; killed "$1" layered run --no-overlay --net=none $LAYOUT; next layered run --no-overlay --net=none $LAYOUT; }
case_image_rm_layered() { # half of its layers are another image's
  fresh
  must layered fetch $LARGE
  must layered fetch $LAYOUT
  started
  killed "$1" rkt image rm "$(layered fetch --full $LARGE)"
  next layered fetch $LARGE
  must rkt image rm "$(layered fetch --full $LARGE)"
  must layered prepare $LAYOUT
}
case_gc_layered() { # what the killed fetch left is taken by a gc that is killed, too
  fresh
  must layered fetch $LAYOUT
  started
  RKT_FAILPOINT=image/stored-layered layered fetch $LARGE >"$OUT" 2>&1
  [[ $? == 137 ]] || fail "making an orphan"
  RKT_FAILPOINT=store/remove-record rkt image rm "$(layered fetch --full $LARGE)" >"$OUT" 2>&1
  [[ $? == 137 ]] || fail "making an orphan"
  age
  killed "$1" gc
  next gc
}
two_images() { fresh; must layered fetch $LARGE; must layered fetch $LAYOUT; must rkt fetch $IMG; }
case_image_gc() {
  two_images
  started
  must layered prepare $LAYOUT
  killed "$1" rkt image gc --grace-period=0s
  next rkt image gc --grace-period=0s
  must layered run-prepared "$(uuid_in prepared)"
}
case_fsck_manifest() {
  two_images
  started
  find $DATA/cas/imageManifest -type f -exec truncate -s 10 {} +
  killed "$1" rkt image fsck --repair
  must rkt image fsck --repair
  next rkt image gc --grace-period=1h
}
case_fsck_record() {
  two_images
  started
  find $DATA/cas/records/images $DATA/cas/records/layers -type f -exec truncate -s 10 {} +
  killed "$1" rkt image fsck --repair
  must rkt image fsck --repair
  next rkt image gc --grace-period=1h
}
case_image_import() {
  fresh
  started
  killed "$1" layered image import /var/tmp/img/layered.tar.gz
  next layered image import /var/tmp/img/layered.tar.gz
}
case_trust_remove() {
  local key
  must rkt trust --prefix=example.org --skip-fingerprint-review $IMG.pub
  key=$(basename /etc/rkt/trustedkeys/prefix.d/example.org/*)
  started
  killed "$1" rkt trust --remove --prefix=example.org "$key"
  must rkt trust --prefix=example.org --skip-fingerprint-review $IMG.pub
  next rkt trust --remove --prefix=example.org "$key"
  [[ ! -e /etc/rkt/trustedkeys/prefix.d/example.org/$key ]] || fail "the key is still trusted"
}
case_trust() {
  rm -rf /etc/rkt/trustedkeys/prefix.d/example.net
  started
  killed "$1" rkt trust --prefix=example.net --skip-fingerprint-review $IMG.pub
  next rkt trust --prefix=example.net --skip-fingerprint-review $IMG.pub
}
case_prepare() { must rkt fetch $IMG; started; killed "$1" rkt prepare --quiet $IMG --exec /bin/true; next rkt prepare $IMG --exec /bin/true; }
case_prepare_unrendered() {
  must rkt fetch $IMG
  rm -rf $DATA/cas/tree/*
  started
  killed "$1" rkt prepare --quiet $IMG --exec /bin/true
  next rkt prepare $IMG --exec /bin/true
}
case_prepare_private() {
  started
  killed "$1" rkt prepare --private-users "$IMG"
  next rkt prepare --private-users "$IMG"
}
case_prepare_copy() { started; killed "$1" rkt prepare --no-overlay $IMG --exec /bin/true; next rkt prepare --no-overlay $IMG --exec /bin/true; }
case_run() { started; killed "$1" rkt run --net=none $IMG --exec /bin/true; next rkt run --net=none $IMG --exec /bin/true; }
case_run_copy() { started; killed "$1" rkt run --no-overlay --net=none $IMG --exec /bin/true; next rkt run --no-overlay --net=none $IMG --exec /bin/true; }
case_run_net() { started; killed "$1" rkt run --net=default $IMG --exec /bin/true; next rkt run --net=default $IMG --exec /bin/true; }
case_run_prepared() {
  started
  must rkt prepare $IMG --exec /bin/true
  killed "$1" rkt run-prepared "$(uuid_in prepared)"
  must rkt prepare $IMG --exec /bin/true
  next rkt run-prepared "$(uuid_in prepared)"
}
case_unit() { declare_pod '{"net": "none"}'; started; unit_killed "$1"; next unit_works; }
case_unit_copy() { declare_pod '{"net": "none", "noOverlay": true}'; started; unit_killed "$1"; next unit_works; }
case_unit_net() { declare_pod '{"net": "default"}'; started; unit_killed "$1"; next unit_works; }
# The program that joins the networks dies: the pod, on its way by then, ends with 254.
case_run_join() {
  started
  RKT_FAILPOINT=$1 rkt run --net=default $IMG --exec /bin/true >"$OUT" 2>&1 </dev/null
  case $? in 0) exit 3 ;; 254) ;; *) fail "the pod did not end with status 254" ;; esac
  next rkt run --net=default $IMG --exec /bin/true
}
case_unit_join() {
  declare_pod '{"net": "default"}'
  started
  environment "$1"
  if systemctl start "$UNIT" >"$OUT" 2>&1; then environment ''; exit 3; fi
  environment ''
  [[ $(systemctl show -P ExecMainStatus "$UNIT") == 254 ]] || fail "$UNIT did not end with status 254"
  next unit_works
}
case_unit_stop() { # rkt gc --mark-only of ExecStopPost=
  declare_pod '{"net": "default"}'
  started
  environment "$1"
  # The same command, its status noted: systemd says nothing of one that it ignores.
  # shellcheck disable=SC2016
  printf 'ExecStopPost=\nExecStopPost=-/bin/sh -c "rkt gc --mark-only --pod=%%i; echo $$? >/run/crash-status"\n' >>"$DROPIN/failpoint.conf"
  must systemctl daemon-reload
  must systemctl start "$UNIT"
  must systemctl stop "$UNIT"
  environment ''
  [[ $(cat /run/crash-status; rm -f /run/crash-status) == 137 ]] || exit 3
  next unit_works
}
case_gc() { started; dead_pod; killed "$1" rkt gc --grace-period=0; next gc; }
case_gc_plugin() { # the stage1's gc dies, rkt gc lives and says so
  started
  dead_pod
  RKT_FAILPOINT=$1 gc >"$OUT" 2>&1
  grep -q 'killed' "$OUT" || exit 3
  [[ -n $(uuid_in exited-garbage) ]] || fail "the pod is gone, its network was not released"
  next gc
}
case_gc_orphan() { # the directory of a dead pod is removed by hand
  started
  dead_pod
  rm -rf "$DATA/pods/run/$(uuid_in run)"
  killed "$1" gc
  next gc
}
case_gc_prepared() { started; must rkt prepare $IMG; killed "$1" rkt gc --grace-period=0 --expire-prepared=0; next gc; }
case_gc_store() {
  rm -f /etc/rkt/pods/$POD.json # what a declared pod needs stays
  must rkt fetch $IMG
  must rkt image rm example.com/busybox
  started
  RKT_FAILPOINT=store/renamed rkt fetch $IMG >"$OUT" 2>&1
  [[ $? == 137 ]] || fail "making an orphan"
  age
  killed "$1" rkt gc --grace-period=0
  next rkt fetch $IMG
}
case_rm() {
  started
  dead_pod
  killed "$1" rkt rm "$(uuid_in run)"
  dead_pod
  next rkt rm "$(uuid_in run)"
}
case_image_rm() {
  rm -f /etc/rkt/pods/$POD.json # what a declared pod needs stays
  must rkt fetch $IMG
  started
  killed "$1" rkt image rm example.com/busybox
  must rkt fetch $IMG
  next rkt image rm example.com/busybox
}

# A pod with an image of which the store has a newer one, or a newer and bad one.
updatable() { # updatable EXEC-OF-THE-NEWER
  local d=/var/tmp/upd
  rm -rf $d && mkdir -p $d/a
  must tar -C $d/a -xf $IMG
  cp $d/a/manifest $d/manifest
  jq -c '.name = "example.com/upd" | .app.exec = ["/bin/sleep", "100000"]' $d/manifest >$d/a/manifest
  must tar -C $d/a -cf $d/old.aci manifest rootfs
  jq -c --arg exec "$1" '.name = "example.com/upd" | .app.exec = [$exec, "100001"]' $d/manifest >$d/a/manifest
  must tar -C $d/a -cf $d/new.aci manifest rootfs
  must rkt --insecure-options=image fetch $d/old.aci
  mkdir -p /etc/rkt/pods
  echo '{"apps": [{"name": "app", "image": "example.com/upd", "update": "local"}], "rkt": {"net": "none", "insecureOptions": ["image"]}}' >/etc/rkt/pods/$POD.json
  must systemctl daemon-reload
  must systemctl start "$UNIT"
  must rkt --insecure-options=image fetch $d/new.aci
}
update() { rkt pod update $POD --timeout=20s --settle=100ms; }
runs() { # runs NUMBER: which of the images
  for _ in {1..100}; do [[ $(pgrep -fxc "/bin/sleep $1") != 1 ]] || break; sleep 0.05; done
  [[ $(pgrep -fxc "/bin/sleep $1") == 1 ]] || fail "not one pod runs sleep $1: $(pgrep -fa '^/bin/sleep')"
  [[ $(systemctl is-active "$UNIT") == active ]] || fail "$UNIT is not active"
}
history() { # history FILTER WANT
  local got
  got=$(rkt pod history $POD --format=json | jq -c "$1")
  [[ $got == "$2" ]] || fail "the history: $got, want $2"
}
case_update() {
  started
  updatable /bin/sleep
  killed "$1" update
  must systemctl restart "$UNIT"
  if [[ $(rkt pod history $POD --format=json | jq -r '[.events[].event] | index("updated") != null') == true ]]; then runs 100001; else runs 100000; fi
  next update
  must systemctl restart "$UNIT"
  runs 100001
  history '[.state, (.events[-1].event | . == "updated" or . == "rolled-back"), ([.events[].seq] == [range(1; (.events | length) + 1)])]' '["good",true,true]'
  must systemctl stop "$UNIT"
}
case_update_bad() {
  started
  updatable /nosuch
  killed "$1" update
  must systemctl restart "$UNIT" # whenever it was killed
  runs 100000
  update >"$OUT" 2>&1 && fail "a bad update went well"
  runs 100000
  history '[.generation, .state, .events[-1].event]' '[1,"good","rolled-back"]'
  must rkt list
  must systemctl stop "$UNIT"
}
case_update_interrupted() { # the pod is put back by the next update, which is killed, too
  started
  updatable /nosuch
  RKT_FAILPOINT=update/judged update >"$OUT" 2>&1
  [[ $? == 137 ]] || fail "making an interrupted update"
  killed "$1" update
  update >"$OUT" 2>&1 && fail "a bad update went well"
  runs 100000
  must systemctl stop "$UNIT"
}
case_pod_fetch() {
  started
  updatable /bin/sleep
  must systemctl stop "$UNIT"
  rm -rf $DATA/declared/$POD
  killed "$1" rkt pod fetch $POD
  next rkt pod fetch $POD
  unit_works
}
case_pod_apply() {
  local pods
  started
  rm -rf /var/tmp/set && mkdir -p /var/tmp/set
  for p in crash crashb; do echo '{"apps": [{"name": "app", "image": "'$IMG'", "exec": ["/bin/sleep", "100000"]}], "rkt": {"net": "none"}}' >/var/tmp/set/$p.json; done
  must rkt pod apply /var/tmp/set
  must systemctl start rkt@crash rkt@crashb
  sed -i s/100000/100001/ /var/tmp/set/crash.json
  mv /var/tmp/set/crashb.json /var/tmp/set/crashc.json
  killed "$1" rkt pod apply /var/tmp/set
  # Whoever reads pod files sees the old set or the new one, as at a boot.
  rm -rf /run/crash-units && mkdir /run/crash-units
  must /usr/lib/systemd/system-generators/rkt-generator /run/crash-units /run/crash-units /run/crash-units
  pods="$(cd /run/crash-units && echo rkt@crash*) $(rkt pod list --no-legend | awk '/^crash/ && $2 != "masked" {print $1}' | xargs)"
  case $pods in
    "rkt@crash.service.d rkt@crashb.service.d crash crashb" | "rkt@crash.service.d rkt@crashc.service.d crash crashc") ;;
    *) fail "half of a set: $pods" ;;
  esac
  next rkt pod apply /var/tmp/set
  [[ $(ls -A /etc/rkt/pods) == $'crash.json\ncrashc.json' ]] || fail "files: $(ls -A /etc/rkt/pods)"
  runs 100001
  [[ $(systemctl is-active rkt@crashb) != active ]] || fail "rkt@crashb runs"
  rm /var/tmp/set/*
  must rkt pod apply /var/tmp/set
  [[ -z $(ls -A /etc/rkt/pods) ]] || fail "files: $(ls -A /etc/rkt/pods)"
  rm -rf $DATA/declared/crash[bc]
}

BEFORE=''
sandbox() { # sandbox FLAGS...: a running one
  must rkt fetch $IMG
  rm -f /run/crash.uuid
  must systemd-run --quiet --collect --unit=crash-sandbox rkt app sandbox --net=none --uuid-file-save=/run/crash.uuid "$@"
  for _ in {1..200}; do [[ ! -s /run/crash.uuid ]] || break; sleep 0.05; done
  must rkt status --wait-ready=60s --uuid-file=/run/crash.uuid
  BOX=$(</run/crash.uuid)
}
add_app() { rkt app add "$BOX" example.com/busybox --name=victim --exec=/bin/sleep --mnt-volume=name=data,kind=empty,target=/data -- 1000; }
app_works() {
  must rkt app list "$BOX"
  must add_app
  must rkt app start "$BOX" --app=victim
  [[ $(rkt app list --no-legend "$BOX") == $'victim\trunning' ]] || fail "rkt app list: $(rkt app list "$BOX")"
  must rkt app stop "$BOX" --app=victim
}
nothing_of_app() { # after app rm, nor in a pod that has ended
  find "$DATA/pods/run/$BOX" -xdev \( -name 'victim*' -o -name 'log@victim*' -o -name data \) -not -type c >"$OUT"
  [[ ! -s $OUT ]] || fail "something is left of the app"
}
leave_sandbox() {
  must rkt app rm "$BOX" --app=victim
  nothing_of_app
  must rkt stop "$BOX"
  must rkt status --wait=30s "$BOX"
}
app_add() { # app_add POINT FLAGS...
  local point=$1
  shift
  started
  sandbox "$@"
  killed "$point" add_app
  next rkt app rm "$BOX" --app=victim
  nothing_of_app
  killed "$point" add_app
  case $point in
    app/tree | app/mounted) ;; # add cleans up by itself
    *) must rkt app rm "$BOX" --app=victim ;;
  esac
  next app_works
  leave_sandbox
}
case_app_add() { app_add "$1"; }
case_app_add_copy() { app_add "$1" --no-overlay; }
case_app_add_private() { app_add "$1" --private-users; }
app_rm() {
  local point=$1
  shift
  started
  sandbox "$@"
  app_works
  must rkt app start "$BOX" --app=victim
  killed "$point" rkt app rm "$BOX" --app=victim
  [[ -z $point ]] || must rkt app rm "$BOX" --app=victim
  nothing_of_app
  next app_works
  leave_sandbox
}
case_app_rm() { app_rm "$1"; }
case_app_rm_copy() { app_rm "$1" --no-overlay; }
case_app_rm_ended() {
  started
  sandbox
  must add_app
  must rkt stop "$BOX"
  must rkt status --wait=30s "$BOX"
  killed "$1" rkt app rm "$BOX" --app=victim
  [[ -z $1 ]] || must rkt app rm "$BOX" --app=victim
  nothing_of_app
  next rkt app list "$BOX"
}
started() { BEFORE=$(snapshot); }

next() { # next COMMAND...: what has to work after the kill
  must rkt list
  must rkt image list
  must "$@"
  must rkt image fsck
}

age() { # what is partial would be left alone for a minute
  find $DATA/cas/{tmp,records,imageManifest,blob,objects,layerlocks,imagelocks} /etc/rkt/trustedkeys -type f -exec touch -d '5 minutes ago' {} + 2>/dev/null
}

# The pods, the host's tables, and what must not be in a store at rest.
snapshot() {
  section() { echo "== $1"; }
  section mounts; findmnt -rno TARGET,FSTYPE | grep -v '^/run/credentials/' | sort
  section cgroups; (cd /sys/fs/cgroup && find machine.slice system.slice -mindepth 1 -type d 2>/dev/null | grep -E '^machine.slice/|rkt' | grep -v rkt-gc.service | sort)
  section netns; ls /run/netns 2>/dev/null
  section links; ip -br link | awk '$1 != "cni0" && $1 !~ /^rkt/ {print $1}' | sort
  section firewall; iptables-save 2>/dev/null | grep -E '^-A|^:CNI' | sort
  section nft; nft list table inet rkt 2>/dev/null
  section register; find /run/rkt/net /run/rkt/nat -mindepth 1 ! -name '.lock*' 2>/dev/null | sort
  section addresses; find /var/lib/cni $DATA/cni -type f ! -name lock ! -name 'last_reserved_ip*' 2>/dev/null | sort
  section machines; machinectl list --no-legend --no-pager | awk '{print $1}'; find /run/systemd/machines -type f 2>/dev/null | sort
  section pods; find $DATA/pods -mindepth 2 -maxdepth 2 | sort
  section partial; find $DATA/tmp $DATA/cas/tmp -mindepth 1 2>/dev/null | sort; find $DATA/cas $DATA/declared $DATA/podsets /etc/rkt -name '.*' -type f -not -path "$DATA/cas/tree/*/rootfs/*" 2>/dev/null | sort
  section trees; for t in "$DATA"/cas/tree/*/; do [[ ! -d $t || -e ${t}rendered ]] || echo "$t"; done
  section orphans; find $DATA/cas/blob $DATA/cas/imageManifest -type f -name 'sha512-*' -printf '%f\n' 2>/dev/null | sort -u | while read -r key; do
    [[ -e $DATA/cas/records/$key.json || -e $DATA/cas/records/$key || -n $(find $DATA/cas/records -name "$key*" -not -path '*/names/*' | head -1) ]] || echo "$key"
  done
  section nspawn; find /run/systemd/nspawn -mindepth 2 2>/dev/null | sort
  section processes; pgrep -af 'systemd-nspawn|/rkt|^rkt' | grep -vE 'pgrep|bash|rkt-gc' | sed 's/^[0-9]* //'
}

# The files of the store, one a line. A tree counts as one.
stored() {
  (cd $DATA/cas && find . -path './tree/*/*' -prune -o -type f -printf '%p\n' -o -path './tree/*' -printf '%p/\n' | sort)
}

# kept CASE: the store has the files that it has when nothing is killed, and
# none when its images are removed.
kept() {
  local reference=/run/crash-stored-$1
  must rkt image gc --grace-period=1h
  mv "$OUT" "$OUT.gc"
  stored >"$OUT"
  if [[ ! -e $reference ]]; then
    mv "$OUT" "$reference"
  # What is known of a source may be missing: it only saves work.
  elif [[ $(comm -3 "$reference" "$OUT" | grep -v '^\./records/remotes/') ]]; then
    diff "$reference" "$OUT" | cat - "$OUT.gc" >"$OUT.diff"
    mv "$OUT.diff" "$OUT"
    fail "the files of the store differ from those of a store that saw no crash"
  fi
  must rkt image gc --grace-period=0s
  # The stage1 image stays, whatever happens.
  [[ $(rkt image list --no-legend --fields=name | grep -vc stage1) == 0 ]] || fail "images stay: $(rkt image list)"
  rkt image list --no-legend --full --fields=id | xargs -r rkt image rm >"$OUT" 2>&1
  must rkt image gc --grace-period=0s
  stored | grep -vE '^\./(ready-[0-9]+|treestorelocks/all)$' >"$OUT" && fail "something is left of a store without images"
  return 0
}

at_rest() { # nothing is left, at the latest a moment later (machined, journal viewers)
  local after i
  age
  must gc
  for i in {1..100}; do
    after=$(snapshot)
    [[ $after != "$BEFORE" ]] || return 0
    sleep 0.1
  done
  diff <(echo "$BEFORE") <(echo "$after") >"$OUT"
  fail "after rkt gc something is left"
}

rounds() { # rounds N SEED
  local i ms net
  RANDOM=$2
  must rkt fetch $IMG
  declare_pod '{"net": "none"}'
  unit_works
  must gc
  started
  for ((i = 0; i < $1; i++)); do
    ms=$((RANDOM % 200))
    net=none
    [[ $((i % 3)) != 2 ]] || net=default
    [[ $((i % 3)) == 1 ]] || declare_pod "{\"net\": \"$net\"}"
    systemctl reset-failed "$UNIT" 2>/dev/null
    must systemctl start --no-block "$UNIT"
    sleep "$(printf '0.%03d' $ms)"
    systemctl kill -s KILL --kill-whom=main "$UNIT" 2>/dev/null
    for _ in {1..300}; do
      case $(systemctl show -P ActiveState "$UNIT") in
        failed | inactive) break ;;
        active) systemctl kill -s KILL --kill-whom=main "$UNIT" 2>/dev/null ;; # it was between two processes
      esac
      sleep 0.05
    done
    case $(systemctl show -P ActiveState "$UNIT") in failed | inactive) ;; *) fail "round $i, killed after $ms ms: $(systemctl status "$UNIT")" ;; esac
    must rkt list
  done
  declare_pod '{"net": "default"}'
  unit_works
  at_rest
}

fetch_rounds() { # fetch_rounds N SEED
  local i ms begin whole source sources=("$LARGE" "$ARCHIVE" "$REGISTRY" "$LAYOUT")
  RANDOM=$2
  fresh
  started
  begin=$(date +%s%3N)
  must layered fetch "$LARGE"
  whole=$(($(date +%s%3N) - begin))
  echo "a fetch takes $whole ms"
  fresh
  for ((i = 0; i < $1; i++)); do
    source=${sources[RANDOM % 4]}
    ms=$((RANDOM % whole + 1))
    timeout -s KILL "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))" rkt --insecure-options=image,http fetch --full "$source" >"$OUT" 2>&1
    case $? in
      137) ;;
      0) # now remove it, or what it was unpacked to
        if ((RANDOM % 2)); then must rkt image rm "$(tail -1 "$OUT")"; else render_again; fi ;;
      *) fail "round $i, $source" ;;
    esac
    must rkt image list
    must rkt image fsck
    ((i % 7)) || { age; must gc; }
  done
  for source in "${sources[@]}"; do must layered fetch "$source"; done
  at_rest
  rm -f /run/crash-stored-all
  kept all # notes what there is
  fresh
  for source in "${sources[@]}"; do must layered fetch "$source"; done
  at_rest
  kept all
}

clean() { # what an earlier case may have left
  systemctl stop "$UNIT" crash-sandbox 2>/dev/null
  environment ''
  systemctl reset-failed "$UNIT" 2>/dev/null
  systemctl stop rkt@crashb rkt@crashc 2>/dev/null
  rkt image list --no-legend --full --fields=id,name | awk '$2 ~ /example.com.upd/ {print $1}' | xargs -r rkt image rm --force >/dev/null 2>&1
  rm -rf /etc/rkt/pods/crash*.json /etc/rkt/pods/.apply* $DATA/declared/crash* $DATA/podsets /run/crash-units
  must systemctl daemon-reload
  must gc
}

clean
case $1 in
  rounds) rounds "$2" "$3" ;;
  fetch_rounds) fetch_rounds "$2" "$3" ;;
  *)
    "case_$1" "$2" && at_rest
    [[ -z $KEPT ]] || kept "$1" ;;
esac
clean
exit 0
