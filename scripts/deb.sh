#!/usr/bin/env bash
# Makes the Debian packages in target/debian from target/portable, with dpkg-deb alone. They install on Debian 11 and later:
#
#   libtransfer-engine        the shared library. Its name has no version: programs ask for upstream's libtransfer_engine.so
#   libtransfer-engine-dev    headers, static library, pkg-config and CMake files. The headers have a folder of their own,
#                             because /usr/include/error.h belongs to libc6-dev
#   transfer-engine-tools     the program mte, its man pages, what bash, zsh and fish complete of it, and the metadata server as
#                             a service that systemd starts when it is told to, not by itself
set -euo pipefail
cd "$(dirname "$0")/.."
command -v dpkg-deb >/dev/null || { echo "deb: dpkg-deb is missing: packages can be made on Debian and its relatives only" >&2; exit 1; }
umask 022
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
maintainer=$(git config user.name 2>/dev/null || echo "transfer-engine") email=$(git config user.email 2>/dev/null || echo "root@localhost")
maintainer="${DEBFULLNAME:-$maintainer} <${DEBEMAIL:-$email}>"
arch=$(dpkg --print-architecture)
multiarch=$(cc -print-multiarch)
libdir=/usr/lib/$multiarch includedir=/usr/include/transfer_engine
# The same commit gives the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
home=target/debian
rm -rf "$home"
mkdir -p "$home"
trap 'rm -rf "$home"/root.*' EXIT

all=$home/root.all
PREFIX=/usr LIBDIR=$libdir INCLUDEDIR=$includedir DESTDIR=$PWD/$all VERSION=$version BUILT=target/portable scripts/install.sh install
gzip -9n "$all"/usr/share/man/man1/*.1
# Debian's zsh looks there for what packages bring; site-functions is for the administrator.
mkdir -p "$all/usr/share/zsh/vendor-completions"
mv "$all/usr/share/zsh/site-functions/_mte" "$all/usr/share/zsh/vendor-completions/"

# package NAME SECTION PATHS CONTROL: those paths of the installed tree, and the fields that are this package's alone.
package() {
    local name=$1 section=$2 paths=$3 fields=$4 root doc
    root=$home/root.$name doc=$home/root.$name/usr/share/doc/$name
    mkdir -p "$root/DEBIAN" "$doc" "$root/usr/share/lintian/overrides"
    for path in $paths; do
        mkdir -p "$root${path%/*}"
        mv "$all$path" "$root$path"
    done
    {
        printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: %s the authors of transfer-engine\nLicense: Apache-2.0\n' "$(date -u +%Y -d "@$SOURCE_DATE_EPOCH")"
        printf ' On Debian systems, the text of this licence is in /usr/share/common-licenses/Apache-2.0.\n'
    } >"$doc/copyright"
    printf 'transfer-engine (%s) unstable; urgency=medium\n\n  * Version %s; CHANGELOG.md of the sources says what is new.\n\n -- %s  %s\n' \
        "$version" "$version" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
    packaged_overrides "$name" >"$root/usr/share/lintian/overrides/$name"
    [ -s "$root/usr/share/lintian/overrides/$name" ] || rm -r "$root/usr/share/lintian"
    {
        printf 'Package: %s\nSource: transfer-engine\nVersion: %s\nArchitecture: %s\nMaintainer: %s\n' "$name" "$version" "$arch" "$maintainer"
        printf 'Installed-Size: %s\nSection: %s\nPriority: optional\n%s\n' "$(du -k -s --apparent-size "$root" | cut -f 1)" "$section" "$fields"
    } >"$root/DEBIAN/control"
    [ "$section" != libs ] || echo 'activate-noawait ldconfig' >"$root/DEBIAN/triggers"
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$root" "$home/${name}_${version}_$arch.deb" >/dev/null
}

# What lintian finds and this project means.
packaged_overrides() { # PACKAGE
    case $1 in
    libtransfer-engine) printf '# Programs written for upstream ask for this name.\n%s: lacks-unversioned-link-to-shared-library *\n%s: shared-library-lacks-version *\n' "$1" "$1" ;;
    esac
}

# Not by dpkg-shlibdeps, which finds the functions of threads in the newer libc6 that this machine has. scripts/portable.sh has
# looked that nothing else is needed.
run_time="libc6 (>= 2.28), libgcc-s1 (>= 3.0) | libgcc1"
chmod 644 "$all$libdir/libtransfer_engine.so"
what=' It moves batches of memory blocks (KV caches, weights) between hosts over RDMA
 and TCP, behind the C API of the Transfer Engine of Mooncake.'

package libtransfer-engine libs "$libdir/libtransfer_engine.so" "Multi-Arch: same
Depends: $run_time
Recommends: ibverbs-providers, libibverbs1
Description: transfer engine for memory blocks - shared library
$what"
package transfer-engine-tools net "/usr/bin/mte /usr/lib/systemd /usr/share/man /usr/share/bash-completion /usr/share/zsh/vendor-completions /usr/share/fish" "Depends: $run_time
Recommends: ibverbs-providers, libibverbs1
Description: transfer engine for memory blocks - metadata server and tools
$what
 .
 The program mte has the metadata server for clusters without etcd or Redis."
package libtransfer-engine-dev libdevel "$includedir $libdir/libtransfer_engine.a $libdir/pkgconfig $libdir/cmake" "Multi-Arch: same
Depends: libtransfer-engine (= $version), libc6-dev, libgcc-s1
Description: transfer engine for memory blocks - development files
$what
 .
 Headers for C and C++, static library, pkg-config and CMake files."
left=$(find "$all" -type f)
[ -z "$left" ] || { echo "deb: these files are installed and in no package:"$'\n'"$left" >&2; exit 1; }
