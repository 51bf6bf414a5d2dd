#!/usr/bin/env bash
# Fetches the Linux source package of Debian and unpacks it: sources.sh FOLDER gives FOLDER/linux and FOLDER/download.
set -euo pipefail
folder=$1
[ -d "$folder/linux" ] && exit 0
mkdir -p "$folder/download"
folder=$(realpath "$folder")
cd "$folder/download"
compgen -G 'linux-source-*.deb' >/dev/null || apt-get download linux-source-6.1
rm -rf "$folder/linux.making" "$folder/package"
dpkg-deb -x linux-source-*.deb "$folder/package"
mkdir "$folder/linux.making"
tar -xf "$folder"/package/usr/src/linux-source-*.tar.xz -C "$folder/linux.making"
rm -rf "$folder/package"
mv "$folder/linux.making" "$folder/linux"
