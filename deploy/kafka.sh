# Formats the volume if it is fresh, which takes a second, and becomes the server.
set -eu
properties=${1:-/etc/fanrate/kafka.properties}
options="-XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Dlog4j2.level=WARN"
if ! test -f /var/lib/kafka/data/log/meta.properties; then
  java -Xmx64m -XX:TieredStopAtLevel=1 $options -cp '/opt/kafka/libs/*' \
    kafka.tools.StorageTool format -t ZmFucmF0ZS1sb2NhbC0xMg -c $properties
fi
exec java -Xms512m -Xmx512m $options -cp '/opt/kafka/libs/*' \
  kafka.Kafka $properties --override "log.flush.interval.messages=$KAFKA_FLUSH_MESSAGES"
