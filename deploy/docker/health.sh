#!/bin/bash
# Succeeds if what runs in this container answers /health with 200: a metadata server, an engine with MC_TE_METRIC, or etcd.
#
#   mte-health [PORT]     the metrics port of an engine if there is one, else the metadata server's
#
# Bash connects by itself, so that the image needs no program for it.
port=${1:-${MC_TE_METRIC_HTTP_PORT:-8080}}
exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 3 _ status _ <&3
[ "${status%$'\r'}" = 200 ]
