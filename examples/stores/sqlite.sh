# The embedded store: a file that all nodes of this machine open. No server.
store_title="the embedded store"
store_packages=()

store_section() { echo "sqlite: {path: $WORK/store.db}"; }
