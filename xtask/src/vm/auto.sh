#!/bin/sh
# What `wsproxy run` chooses by itself on this kernel, and whether it stops as it is told to.
# Standard output has lines for xtask/src/vm/report.rs.
log=/tmp/auto.log
wsproxy run --listen 127.0.0.1:8080 --admin 127.0.0.1:9090 --log-format json >$log 2>&1 &
pid=$!
turns=0
ask() {
  printf 'GET /metrics HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n' |
    nc -w 10 127.0.0.1 9090 >/tmp/metrics 2>/dev/null
  grep -q '^wsproxy_' /tmp/metrics
}
until ask; do
  turns=$((turns + 1))
  [ $turns -lt 60 ] && kill -0 $pid 2>/dev/null || { echo "no metrics after $turns s"; cat $log; exit 1; }
  sleep 1
done
cat $log
path=$(sed -n 's/.*"datapath ready".*"datapath":"\([a-z]*\)".*/\1/p;s/.*"datapath":"\([a-z]*\)".*"datapath ready".*/\1/p' $log | head -n 1)
reason=$(sed -n 's/^wsproxy_datapath_fallback_total{reason="\([a-z_]*\)"} [1-9].*/\1/p' /tmp/metrics | head -n 1)
echo
echo "@@ datapath ${path:-relay} ${reason:-none}"
wsproxy probe ws://127.0.0.1:8080/ws || exit 1
kill -TERM $pid
wait $pid
