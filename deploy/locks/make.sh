#!/bin/sh
# Makes what the files beside this one need, in FOLDER, otherwise .locks: an authority, a certificate of it for the
# servers, and two passwords. What is there stays. Whoever has an authority already puts files of these names there.
set -eu
umask 077
folder=${1:-.locks}
new_key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

quietly() { # says what the command said only if it failed
  told=$("$@" 2>&1) || {
    echo "$told" >&2
    exit 1
  }
}

if ! test -s ca.pem; then
  quietly openssl req -x509 $new_key -days 3650 -subj '/CN=Fanrate authority' -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout ca.key -out ca.pem
fi
if ! test -s server.pem; then
  cat >server.ext <<EXTENSIONS
subjectAltName=DNS:nats,DNS:kafka,DNS:rabbit,DNS:redis
basicConstraints=CA:FALSE
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
EXTENSIONS
  quietly openssl req $new_key -subj '/CN=Fanrate servers' -keyout server.key -out server.csr
  quietly openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -extfile server.ext -out server.pem
  rm server.csr server.ext
fi
for name in broker store; do
  test -s $name.password || openssl rand -hex 24 >$name.password
done
# Each server runs as a user of its own, whom this machine may not know. The folder is closed to all but its owner, and
# into a container come only the files that are meant for it.
chmod 644 ca.pem server.pem server.key broker.password store.password
