# Becomes the server that is named, behind TLS and a password. What it is told beside its usual configuration is written
# into memory, for its user only; no password is on a command line or in an environment.
set -eu
umask 077
secrets=/run/secrets
server=$1
shift

# Of the broker or the store. In some configurations other letters would mean something else.
password() {
  found=$(cat "$secrets/$1_password")
  case $found in
  '' | *[!A-Za-z0-9._~-]*)
    echo "$1.password: must be one line of letters, digits and . _ ~ - only" >&2
    exit 2
    ;;
  esac
  printf %s "$found"
}

case $server in
redis)
  # The user default has all rights and cannot come in. Without the rights Redis leaves every transaction out when it
  # reads its file at a start, for it does so in this user's name.
  password=$(password store)
  cat >/tmp/redis.conf <<END
include /etc/fanrate/redis.conf
port 0
tls-port 6379
tls-cert-file $secrets/server_certificate
tls-key-file $secrets/server_key
tls-ca-cert-file $secrets/authority
tls-auth-clients no
user default off ~* &* +@all
user fanrate on >$password ~* &* +@all
END
  exec redis-server /tmp/redis.conf --appendfsync "$REDIS_APPENDFSYNC" "$@"
  ;;
nats)
  password=$(password broker)
  cat /etc/fanrate/nats.conf - >/tmp/nats.conf <<END
tls {cert_file: "$secrets/server_certificate", key_file: "$secrets/server_key"}
authorization {users: [{user: "fanrate", password: "$password"}]}
END
  exec nats-server -c /tmp/nats.conf
  ;;
rabbit)
  password=$(password broker)
  cat >/tmp/definitions.json <<END
{"users": [{"name": "fanrate", "password": "$password", "tags": ["administrator"]}],
 "vhosts": [{"name": "/"}],
 "permissions": [{"user": "fanrate", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}]}
END
  # A volume that was begun without locks has the user guest. It comes in from nowhere without loopback_users, of which
  # the image has one of its own in conf.d: no file there is read.
  grep -v -e ^listeners -e ^loopback_users /etc/rabbitmq/rabbitmq.conf >/tmp/rabbit.conf
  cat >>/tmp/rabbit.conf <<END
listeners.tcp = none
listeners.ssl.default = 5671
ssl_options.cacertfile = $secrets/authority
ssl_options.certfile = $secrets/server_certificate
ssl_options.keyfile = $secrets/server_key
ssl_options.verify = verify_none
load_definitions = /tmp/definitions.json
END
  mkdir -p /tmp/conf.d
  export RABBITMQ_CONFIG_FILE=/tmp/rabbit.conf RABBITMQ_CONFIG_FILES=/tmp/conf.d
  exec rabbitmq-server
  ;;
kafka)
  # PLAIN: a user of SCRAM belongs to the data, and a volume begun without it, or with another password, had no way in.
  password=$(password broker)
  module=org.apache.kafka.common.security.plain.PlainLoginModule
  cat $secrets/server_key $secrets/server_certificate >/tmp/server.pem
  cat /etc/fanrate/kafka.properties - >/tmp/kafka.properties <<END
listeners=CLIENT://0.0.0.0:9092,OWN://127.0.0.1:9094,CONTROLLER://127.0.0.1:9093
advertised.listeners=CLIENT://kafka:9092,OWN://127.0.0.1:9094
inter.broker.listener.name=OWN
listener.security.protocol.map=CLIENT:SASL_SSL,OWN:PLAINTEXT,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=/tmp/server.pem
sasl.enabled.mechanisms=PLAIN
listener.name.client.plain.sasl.jaas.config=$module required user_fanrate="$password";
END
  exec sh /etc/fanrate/kafka.sh /tmp/kafka.properties
  ;;
esac
