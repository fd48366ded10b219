#!/bin/bash
# registry.sh: makes images of an unpacked nginx with the tools of Debian and
# serves them on registries of this host.  registry.sh NGINX.aci
#
#   /var/tmp/reg/oci        umoci's layout: nginx:1 of three layers, busybox-like nothing else
#   /var/tmp/reg/*.tar      archives by skopeo and buildah
#   127.0.0.1:5000          plain http, everybody
#   localhost:5443          TLS by a private authority, user "tester", password "secret"
set -euo pipefail
D=/var/tmp/reg
rm -rf $D
mkdir -p $D/root $D/up/usr/share/nginx/html $D/up/etc
tar -C $D -xf "$1" rootfs
mv $D/rootfs $D/base
cd $D
printf 'www-data:x:33:33::/var/www:/usr/sbin/nologin\n' >>base/etc/passwd
printf 'www-data:x:33:\nextra:x:77:www-data\n' >>base/etc/group
mkdir -p base/var/lib/nginx base/var/log/nginx base/usr/share/nginx/html base/old
echo old >base/old/f
echo base >base/removed
ln -sf /dev/stdout base/var/log/nginx/access.log
ln -sf /dev/stderr base/var/log/nginx/error.log
chown -R 33:33 base/var/lib/nginx base/usr/share/nginx/html
# the upper layers: a new page, a whiteout, an opaque directory, a hard link to a lower file, a file through a link
cat >up/etc/nginx.conf <<'X'
daemon off;
pid /tmp/nginx.pid;
error_log /var/log/nginx/error.log notice;
events {}
http {
  access_log /var/log/nginx/access.log;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 8080; root /usr/share/nginx/html; }
}
X
echo "a page of the image" >up/usr/share/nginx/html/index.html
chown 33:33 up/usr/share/nginx/html up/usr/share/nginx/html/index.html
chmod 750 up/usr/share/nginx/html
tar -C base -cf base.tar .
tar -C up -cf up.tar .
mkdir top
mkdir top/old
touch top/.wh.removed top/old/.wh..wh..opq
echo new >top/old/g
tar -C top -cf top.tar .
umoci init --layout oci
umoci new --image oci:1
for t in base up top; do umoci raw add-layer --image oci:1 $t.tar >/dev/null; done
umoci config --image oci:1 --config.user www-data --config.exposedports 8080/tcp --config.volume /usr/share/nginx/html \
  --config.stopsignal SIGQUIT --config.workingdir /made/here --config.entrypoint /usr/sbin/nginx --config.cmd -c --config.cmd /etc/nginx.conf \
  --config.env PAGE=x --config.label org.opencontainers.image.authors=somebody
skopeo copy -q oci:oci:1 oci-archive:nginx-oci.tar:1
skopeo copy -q oci:oci:1 docker-archive:nginx-docker.tar:example.com/nginx:docker
skopeo copy -q --dest-compress-format zstd oci:oci:1 oci:zstd:1 2>/dev/null || cp -a oci zstd
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
c=$(buildah from scratch)
buildah add -q "$c" base.tar / >/dev/null
buildah add -q "$c" up.tar / >/dev/null
buildah config --user www-data --port 8080/tcp --volume /usr/share/nginx/html --stop-signal SIGQUIT --workingdir /made/here \
  --entrypoint '["/usr/sbin/nginx"]' --cmd '-c /etc/nginx.conf' "$c"
buildah commit -q "$c" localhost/nginx:b >/dev/null
buildah push -q localhost/nginx:b oci-archive:$D/nginx-buildah.tar:b

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=test-ca -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout tls.key -out tls.csr 2>/dev/null
openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out tls.pem -extfile <(echo subjectAltName=DNS:localhost) 2>/dev/null
htpasswd -Bbc htpasswd tester secret 2>/dev/null
cat >plain.yml <<X
version: 0.1
storage: {filesystem: {rootdirectory: $D/registry}}
http: {addr: "127.0.0.1:5000"}
X
cat >tls.yml <<X
version: 0.1
storage: {filesystem: {rootdirectory: $D/registry}}
http: {addr: "localhost:5443", tls: {certificate: $D/tls.pem, key: $D/tls.key}}
auth: {htpasswd: {realm: test, path: $D/htpasswd}}
X
systemctl disable --quiet --now docker-registry 2>/dev/null || true # Debian's package starts one, with a password
for r in plain tls; do systemd-run --quiet --collect --unit=test-registry-$r docker-registry serve $D/$r.yml; done
for p in 5000 5443; do
  for ((i = 0; ; i++)); do
    (exec 3<>/dev/tcp/localhost/$p) 2>/dev/null && break
    [[ $i -lt 200 ]] || { journalctl -u 'test-registry-*' --no-pager >&2; exit 1; }
    sleep 0.1
  done
done
push() { skopeo copy -q --dest-tls-verify=false "$1" "docker://127.0.0.1:5000/$2"; }
umoci config --image oci:1 --tag arm --architecture arm64
push oci:oci:arm team/arm:1
push oci:oci:1 team/nginx:1
push oci:zstd:1 team/nginx:zstd
buildah manifest rm multi >/dev/null 2>&1 || true
buildah manifest create multi >/dev/null
buildah manifest add --tls-verify=false multi docker://127.0.0.1:5000/team/arm:1 >/dev/null
buildah manifest add --tls-verify=false multi docker://127.0.0.1:5000/team/nginx:1 >/dev/null
buildah manifest push -q --all --tls-verify=false multi docker://127.0.0.1:5000/team/multi:1 >/dev/null
