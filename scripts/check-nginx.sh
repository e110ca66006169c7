#!/bin/sh
# Starts Volant behind nginx with deploy/nginx.conf and looks at what a device and a client meet.
# Needs curl, Python and a built binary: scripts/check-nginx.sh target/debug/volant; scripts/nginx finds the nginx.
set -eu
volant=$1
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
server= ; proxy=
trap 'kill $server $proxy 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
nginx=$("$here/scripts/nginx")
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
front=$(free_port) back=$(free_port)

"$volant" serve --listen "127.0.0.1:$back" --data-dir "$work/data" >"$work/out" 2>"$work/log" &
server=$!
{
    echo "daemon off; pid $work/nginx.pid; error_log stderr; events {}"
    echo "http { access_log off;"
    for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/$kind;"; done
    sed -e "s/listen 8000;/listen 127.0.0.1:$front;/" -e "s/127.0.0.1:8001/127.0.0.1:$back/" "$here/deploy/nginx.conf"
    echo "}"
} >"$work/nginx.conf"
"$nginx" -e stderr -t -c "$work/nginx.conf" 2>"$work/test" || { cat "$work/test"; exit 1; }
"$nginx" -e stderr -c "$work/nginx.conf" 2>"$work/nginx.log" &
proxy=$!
for _ in $(seq 100); do
    curl -fs "http://127.0.0.1:$front/health/live" >"$work/live" && break
    sleep 0.2
done
grep -q . "$work/live" || { echo "no answer through nginx"; cat "$work/log" "$work/nginx.log"; exit 1; }

# The handshake as the firmware makes it; curl leaves when nothing more comes.
curl -s -i -N --http1.1 --max-time 3 "http://127.0.0.1:$front/ws/esp32/2025001/" -H 'Connection: Upgrade' \
    -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
    -H 'Sec-WebSocket-Protocol: arduino' -H 'Origin: file://' >"$work/handshake" 2>/dev/null || true
tr -d '\r' <"$work/handshake" | sed '/^$/q' >"$work/head"
fail() { echo "FAILED: $1"; cat "$work/head"; exit 1; }
grep -q '^HTTP/1.1 101' "$work/head" || fail "no upgrade through nginx"
grep -qi '^connection: upgrade$' "$work/head" || fail "Connection is not exactly Upgrade"
grep -qi '^sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=$' "$work/head" || fail "wrong accept key"

# An ordinary request is served, and nobody beyond the proxy is somebody at the machine.
status=$(curl -s -o "$work/answer" -w '%{http_code}' "http://127.0.0.1:$front/api/v2/audit")
direct=$(curl -s -o "$work/direct" -w '%{http_code}' "http://127.0.0.1:$back/api/v2/audit")
[ "$status" = 401 ] || [ "$status" = 403 ] || { echo "FAILED: a stranger got $status from /api/v2/audit"; exit 1; }
[ "$direct" = 200 ] || { echo "FAILED: the operator got $direct from /api/v2/audit"; exit 1; }
echo "nginx: handshake, requests and callers are right"
