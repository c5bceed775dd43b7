#!/usr/bin/env bash
# Lays out target/dist: everything that a release has, with SHA256SUMS. `make dist` builds what goes into it before.
#
#   transfer-engine-VERSION.tar.gz                 the sources, as git has them at HEAD
#   transfer-engine-VERSION-linux-ARCH.tar.gz      what `make install` installs, to be unpacked anywhere
#   *.deb, *.whl                                   of `make deb` and `make wheel`
#   transfer-engine-VERSION.cdx.json               what it is made of (scripts/sbom.py)
#
#   BUILT, DEBS, WHEELS, DIST      other folders than target/portable, target/debian, target/wheels and target/dist
# The same commit and the same tools give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
built=$(realpath "${BUILT:-target/portable}") debs=${DEBS:-target/debian} wheels=${WHEELS:-target/wheels} dist=${DIST:-target/dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# What lies beside HEAD would be in the binaries and not in the sources.
[ -z "$(git status --porcelain --untracked-files=no)" ] || [ -n "${DIRTY:-}" ] || { echo "dist: something is not committed; DIRTY=1 goes on" >&2; exit 1; }
rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git archive --format=tar --prefix="transfer-engine-$version/" HEAD | gzip -9n >"$dist/transfer-engine-$version.tar.gz"

name=transfer-engine-$version-linux-$(uname -m)
PREFIX=/$name DESTDIR=$work BUILT=$built scripts/install.sh install
cp LICENSE README.md CHANGELOG.md "$work/$name/"
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$work" -c "$name" | gzip -9n >"$dist/$name.tar.gz"

for folder in "$debs/*.deb" "$wheels/*.whl"; do
    files=$(compgen -G "$folder") || { echo "dist: there is no $folder: run 'make dist'" >&2; exit 1; }
    # shellcheck disable=SC2086
    cp $files "$dist/"
done
python3 scripts/sbom.py >"$dist/transfer-engine-$version.cdx.json"
(cd "$dist" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS && chmod 644 SHA256SUMS)
ls -l "$dist"
