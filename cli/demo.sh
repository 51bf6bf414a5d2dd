#!/usr/bin/env bash
# A real snapshot of a real directory, a second one after changes, the difference, both restored and compared:
# demo.sh PROGRAM. Everything happens below one temporary folder, which is removed at the end.
set -euo pipefail
program=$(realpath "$1")
checkout=$(realpath "$(dirname "$0")/..")
base=$(mktemp -d "${TMPDIR:-/tmp}/stillpoint-demo.XXXXXX")
trap 'rm -rf "$base"' EXIT

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() {
  local shown="$*"
  printf '$ stillpoint %s\n' "${shown//$base\//}"
  "$program" "$@"
}

say "Real data: this checkout, and the sources of its dependencies where they are"
mkdir "$base/project"
tar -C "$checkout" --exclude=./target --exclude='./target-*' -cf - . | tar -C "$base/project" -xf -
registry="${CARGO_HOME:-$HOME/.cargo}/registry/src"
if [ -d "$registry" ]; then cp -a "$registry" "$base/project/dependencies"; fi
# What a file tree may hold besides plain files.
ln -s ../nowhere "$base/project/dangling link"
ln "$base/project/README.md" "$base/project/hard link"
mkfifo "$base/project/pipe"
truncate -s 1G "$base/project/sparse"
printf 'x' >> "$base/project/sparse"
touch -d '1969-07-20 20:17:40.123456789 UTC' "$base/project/LICENSE"
chmod 4711 "$base/project/Makefile"
printf 'odd' > "$base/project/"$'odd \xff\n name'
printf '%s files, %s\n' "$(find "$base/project" -type f | wc -l)" "$(du -sh "$base/project" | cut -f 1)"

head -c 24 /dev/urandom | base64 > "$base/passphrase"
chmod 600 "$base/passphrase"
export STILLPOINT_REPOSITORY="$base/repository" STILLPOINT_PASSWORD_FILE="$base/passphrase"
export STILLPOINT_CACHE_DIR="$base/cache"

say "A repository, and a first snapshot"
run init
cd "$base"
cp -a project first-copy
run snapshot project

say "A day's work, and a second snapshot"
printf 'one more line\n' >> project/README.md
mkdir project/new && printf 'new\n' > project/new/file
rm project/LICENSE
mv project/docs project/documents
run snapshot project
run snapshots

say "What changed"
run diff latest~1 latest

say "Both restored, and compared with the originals"
run restore "latest~1:$base/project" --target first
run restore "latest:$base/project" --target second --verify
# `diff` compares contents and kinds of what it can read; the listings compare all the rest, pipes and holes included.
listing() {
  (cd "$1" && find . -mindepth 1 \( -type d -printf '%P %y %m %U %G %T@\n' \) -o -printf '%P %y %m %U %G %T@ %s %n %l\n' | LC_ALL=C sort)
}
for pair in "first-copy first" "project second"; do
  read -r original restored <<< "$pair"
  diff -r --no-dereference --exclude=pipe --exclude=sparse "$original" "$restored"
  cmp "$original/sparse" "$restored/sparse"
  diff <(listing "$original") <(listing "$restored")
  printf '%s and %s are the same: contents, kinds, modes, owners, times, sizes, links\n' "$original" "$restored"
done
if [ "$(stat -c %i second/README.md)" != "$(stat -c %i 'second/hard link')" ]; then
  echo "the hard link was not restored as one" >&2
  exit 1
fi
if [ "$(du -k second/sparse | cut -f 1)" -gt 64 ]; then
  echo "the hole was not restored as one" >&2
  exit 1
fi

say "Everything in the repository verified, all data read"
run check --read-data
run stats
say "Done"
