# One member of etcd, with the client port STORE_PORT and the peer port STORE_PORT2.
store_title="etcd"
store_packages=(etcd-server)

store_section() { echo "etcd3: {host: '127.0.0.1:$STORE_PORT'}"; }
store_run() {
  become etcd --name e1 --data-dir "$WORK/etcd" --listen-client-urls "http://127.0.0.1:$STORE_PORT" \
    --advertise-client-urls "http://127.0.0.1:$STORE_PORT" --listen-peer-urls "http://127.0.0.1:$STORE_PORT2" \
    --initial-advertise-peer-urls "http://127.0.0.1:$STORE_PORT2" --initial-cluster "e1=http://127.0.0.1:$STORE_PORT2"
}
store_ready() { has_status "$STORE_PORT" /health; }
