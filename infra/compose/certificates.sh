#!/bin/sh
# An authority in /authority, and what it issues in /tls. In earnest the authority is on a machine of its own, and its
# key goes nowhere: see infra/README.md.
set -eu

[ -e /authority/ca.pem ] || dyad-gateway ca init --dir /authority --name dyad-local

# DIRECTORY NAME USAGE SAN
issue() {
    if [ ! -e "$1/$2.pem" ]; then
        dyad-gateway ca issue "$2" "$3" --san "$4" --out "$1" --dir /authority
    fi
    cp /authority/ca.pem "$1/"
}
issue /tls/gateway gateway --client gateway.dyad.internal
issue /tls/node node --server runner-1.dyad.internal
issue /tls/prometheus prometheus --client prometheus.dyad.internal

# Every start gives everybody a list that is good for another 90 days.
dyad-gateway ca crl --dir /authority
for directory in /tls/gateway /tls/node; do
    cp /authority/ca.crl "$directory/"
done

# The users of the images that read them.
chown -R 65532:65532 /tls/gateway /tls/node
chown -R 65534:65534 /tls/prometheus
