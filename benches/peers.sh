#!/usr/bin/env bash
# Installs the programs that the comparison runs beside stillpoint: peers.sh ROOT
# restic, borg, PostgreSQL and e2fsprogs come from Debian; rustic and bupstash are compiled below ROOT, at low priority.
set -euo pipefail
root=$1
mkdir -p "$root"
root=$(realpath "$root")
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
need() { if ! command -v "$1" >/dev/null; then missing+=("$2"); fi; }
need restic restic
need borg borgbackup
need zstd zstd
need mke2fs e2fsprogs
need git git
need pkg-config pkg-config
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
pkg-config --exists libsodium 2>/dev/null || missing+=(libsodium-dev)
if [ ${#missing[@]} -gt 0 ]; then
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
# A target folder of their own, so that nothing of the project is compiled again.
install() {
  nice -n 19 env CARGO_TARGET_DIR="$root/target" CARGO_BUILD_JOBS="${PEERS_JOBS:-1}" \
    cargo install --locked --root "$root" "$@"
}
[ -x "$root/bin/bupstash" ] || install bupstash --version 0.12.0
[ -x "$root/bin/rustic" ] || install rustic-rs --version 0.11.3 --no-default-features
rm -rf "$root/target"
for tool in restic borg "$root/bin/rustic" "$root/bin/bupstash"; do "$tool" --version 2>/dev/null || "$tool" version; done
