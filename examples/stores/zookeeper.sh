# One server of ZooKeeper on the client port STORE_PORT. Its ticks are half a second, so that it grants short sessions.
store_title="ZooKeeper"
store_packages=(libzookeeper-java default-jre-headless)

store_section() { echo "zookeeper: {hosts: ['127.0.0.1:$STORE_PORT']}"; }
store_run() {
  local jars='' jar
  for jar in zookeeper zookeeper-jute slf4j-api slf4j-simple netty-all metrics-core snappy-java; do
    jars+=/usr/share/java/$jar.jar:
  done
  printf '%s\n' tickTime=500 "dataDir=$WORK/zookeeper" "clientPort=$STORE_PORT" clientPortAddress=127.0.0.1 \
    admin.enableServer=false 4lw.commands.whitelist=srvr >"$WORK/zookeeper.cfg"
  become java -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Dzookeeper.preAllocSize=1024 \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$WORK/zookeeper.cfg"
}
store_ready() {
  local answer
  answer=$( (exec 3<>"/dev/tcp/127.0.0.1/$STORE_PORT" && echo srvr >&3 && timeout 2 cat <&3) 2>/dev/null)
  [[ $answer == *Mode:* ]]
}
