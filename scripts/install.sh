#!/usr/bin/env bash
# Installs what `make build` built, or removes exactly that; `make install` and `make uninstall` call it.
#
#   install.sh install|uninstall     with PREFIX, LIBDIR, INCLUDEDIR, BINDIR, DATADIR, UNITDIR, DESTDIR and VERSION in the environment
#
#   COMPANIONS=1     also the empty libraries of `make companions`
#   BUILT=FOLDER     takes libraries and program from there instead of target/release
# Builds nothing: it is run by root, the build is not.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PREFIX:=/usr/local}" "${LIBDIR:=$PREFIX/lib}" "${INCLUDEDIR:=$PREFIX/include}" "${BINDIR:=$PREFIX/bin}" "${DATADIR:=$PREFIX/share}" "${DESTDIR:=}"
: "${UNITDIR:=$PREFIX/lib/systemd/system}"
: "${VERSION:=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)}"
built=${BUILT:-target/release}

fail() { echo "install: $*" >&2; exit 1; }

# From a template to its text. A path below the prefix is written relative to it, so that the tree can be moved.
filled() { # TEMPLATE
    local libraries
    libraries=$(sed -n 's/^Libs\.private: //p' packaging/transfer_engine.pc.in | sed 's/-l//g; s/ /;/g')
    sed -e "s|@PREFIX@|$PREFIX|" -e "s|@LIBDIR@|$(below_prefix "$LIBDIR")|" -e "s|@INCLUDEDIR@|$(below_prefix "$INCLUDEDIR")|" \
        -e "s|@INCLUDEDIR_FROM_LIBDIR@|$(realpath -ms --relative-to="$LIBDIR" "$INCLUDEDIR")|" -e "s|@SYSTEM_LIBRARIES@|$libraries|" \
        -e "s|@VERSION@|$VERSION|" -e "s|@MAJOR@|$(cut -d. -f1 <<<"$VERSION")|g" -e "s|@MINOR@|$(cut -d. -f2 <<<"$VERSION")|g" "$1"
}
below_prefix() { case $1 in "$PREFIX"/*) echo "\${prefix}/${1#"$PREFIX"/}" ;; *) echo "$1" ;; esac; }

# Every file as "mode<TAB>source<TAB>target"; a source in packaging/ is a template.
files() {
    (cd include && find . -name '*.h' -printf '%P\n' | sort) | while read -r header; do
        printf '644\tinclude/%s\t%s\n' "$header" "$INCLUDEDIR/$header"
    done
    printf '755\t%s\t%s\n' "$built/libtransfer_engine.so" "$LIBDIR/libtransfer_engine.so"
    printf '644\t%s\t%s\n' "$built/libtransfer_engine.a" "$LIBDIR/libtransfer_engine.a"
    printf '755\t%s\t%s\n' "$built/mte" "$BINDIR/mte"
    printf '644\tdeploy/systemd/mte-metadata-server.service\t%s\n' "$UNITDIR/mte-metadata-server.service"
    scripts/share.sh list | while read -r file; do
        printf '644\t%s\t%s\n' "$built/share/$file" "$DATADIR/$file"
    done
    printf '644\tpackaging/transfer_engine.pc.in\t%s\n' "$LIBDIR/pkgconfig/transfer_engine.pc"
    for name in config config-version; do
        printf '644\tpackaging/transfer_engine-%s.cmake.in\t%s\n' "$name" "$LIBDIR/cmake/transfer_engine/transfer_engine-$name.cmake"
    done
    [ "${COMPANIONS:-0}" = 0 ] || scripts/companions.sh list | while read -r file; do
        printf '644\ttarget/companions/%s\t%s\n' "$file" "$LIBDIR/$file"
    done
}

do_install() {
    local mode source target
    # The program and what belongs to it are optional: the libraries alone can be installed after `make library`.
    files | while IFS=$'\t' read -r mode source target; do
        [ -f "$source" ] || [[ $source == "$built"/mte || $source == "$built"/share/* ]] || fail "$source is missing: run 'make build'$([[ $source != *companions* ]] || echo " and 'make companions'") first"
    done
    files | while IFS=$'\t' read -r mode source target; do
        [ -f "$source" ] || continue
        case $source in
        # A service without its program would only fail.
        *.service) [ ! -f "$built/mte" ] || { install -d "$DESTDIR${target%/*}" && sed "s|/usr/local/bin/|$BINDIR/|" "$source" >"$DESTDIR$target" && chmod "$mode" "$DESTDIR$target"; } ;;
        *.in) install -d "$DESTDIR${target%/*}" && filled "$source" >"$DESTDIR$target" && chmod "$mode" "$DESTDIR$target" ;;
        *) install -D -m "$mode" "$source" "$DESTDIR$target" ;;
        esac
    done
}

do_uninstall() {
    local mode source target folder
    COMPANIONS=1 files | while IFS=$'\t' read -r mode source target; do
        # Somebody else's, if it is not empty as ours is.
        [[ $source != target/companions/* ]] || scripts/companions.sh is-ours "$DESTDIR$target" || continue
        rm -f "$DESTDIR$target"
    done
    # The folders that have no other use, those of headers from the innermost on.
    { (cd include && find . -mindepth 1 -depth -type d -printf '%P\n') | sed "s|^|$INCLUDEDIR/|"; echo "$LIBDIR/cmake/transfer_engine"; } | while read -r folder; do
        rmdir "$DESTDIR$folder" 2>/dev/null || true
    done
}

case ${1:-} in
install) do_install ;;
uninstall) do_uninstall ;;
*) fail "say install or uninstall" ;;
esac
