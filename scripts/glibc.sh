#!/usr/bin/env bash
# Makes target/glibc: stand-ins for the C library that offer a linker nothing newer than glibc 2.28, so that what is shipped
# also runs on older systems than the one that builds it (2.28 is what manylinux_2_28, RHEL 8 and Debian 10 have).
#
# glibc keeps every version of its functions for programs of old. Each stand-in has this machine's symbols, without code, at
# the newest version up to 2.28, and lies in the library where 2.28 had it (threads, dl and rt were moved into libc in 2.34).
# What 2.28 had as inline functions or in its start-up object is in scripts/glibc.c. On systems without glibc the folder is
# empty, and so changes nothing.
#
# No file has the name that programs look for at run time: cargo and nextest put folders of a build's libraries into the
# library path of the tests, which would then load a stand-in.
set -euo pipefail
cd "$(dirname "$0")/.."
newest=2.28
home=$PWD/target/glibc
# Whatever the stand-ins depend on.
made_from() { cat scripts/glibc.sh scripts/glibc.c; cc --version; ld --version; cc -print-file-name=libc.so.6 | xargs sha256sum; }
stamp=$home/$(made_from 2>/dev/null | sha256sum | cut -c 1-16)
[ ! -e "$stamp" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$home"
mkdir -p "$home"

# The symbols of a library as "name version type size", with one version each.
symbols() { # LIBRARY
    readelf --dyn-syms --wide "$1" | awk -v newest="$newest" '
        function order(version, part) { split(version, part, "."); return part[1] * 1000000 + part[2] * 1000 + part[3] }
        $7 == "UND" || $4 !~ /^(FUNC|IFUNC|OBJECT)$/ || split($8, word, /@+GLIBC_/) != 2 || word[2] !~ /^[0-9.]+$/ { next }
        order(word[2]) > order(newest) { moved[word[1]] = 1; next }
        !(word[1] in version) || order(word[2]) > order(version[word[1]]) { version[word[1]] = word[2]; type[word[1]] = $4; size[word[1]] = $3 }
        END { for (name in version) print name, version[name], type[name], size[name], (name in moved) }'
}

# What has a version of 2.29 or later besides came to libc from another library, which its name tells.
library_of() { # reads what symbols writes, writes the library before it
    awk '{ into = "c" }
        $5 == 1 && $1 !~ /^__libc_start_main$/ {
            if ($1 ~ /^dl[a-z]/) into = "dl"
            else if ($1 ~ /^(aio_|lio_|mq_|timer_|shm_)/) into = "rt"
            else if ($1 ~ /^(openpty|forkpty|log)/) into = "util"
            else if ($1 ~ /^(__)?(pthread_|sem_)/) into = "pthread"
        }
        { print into, $0 }'
}

# A shared library without code that has the symbols it reads.
stand_in() { # FILE SONAME
    awk -v source="$work/$1.s" -v map="$work/$1.map" '
        { names[$3] = names[$3] " " $2 ";" }
        { print ".globl " $2 "\n.type " $2 "," ($4 == "OBJECT" ? "%object\n.size " $2 "," $5 : "%function") "\n" $2 ":" > source }
        END { print ".section .note.GNU-stack,\"\",%progbits" > source
              for (version in names) print "GLIBC_" version " {" names[version] " };" > map }'
    cc -nostdlib -shared -o "$home/$1" "$work/$1.s" -Wl,-soname,"$2" -Wl,--version-script="$work/$1.map"
}

libc=$(cc -print-file-name=libc.so.6)
if [ -e "$libc" ] && [ "$(symbols "$libc" | wc -l)" -gt 1000 ]; then
    { symbols "$libc" | library_of; symbols "$(cc -print-file-name=libm.so.6)" | sed 's/^/m /'; } >"$work/all"
    while read -r name file soname; do
        grep "^$name " "$work/all" | stand_in "$file" "$soname"
    done <<<"c libc-symbols.so libc.so.6
m libm.so libm.so.6
pthread libpthread.so libpthread.so.0
dl libdl.so libdl.so.2
rt librt.so librt.so.1
util libutil.so libutil.so.1"
    start=$(awk '$2 == "__libc_start_main" { print $3 }' "$work/all")
    cc -O2 -fPIC -ffunction-sections -Wall -Wextra -Werror -DSTART_VERSION="\"GLIBC_$start\"" -c scripts/glibc.c -o "$work/glibc.o"
    ar rcs "$home/libglibc.a" "$work/glibc.o"
    # The system's, with the stand-in in the place of libc.so.6.
    sed -n "s|^GROUP *( *[^ ]*/libc\.so\.6 |GROUP ( $home/libglibc.a $home/libc-symbols.so |p" "$(cc -print-file-name=libc.so)" >"$home/libc.so"
    grep -q GROUP "$home/libc.so"
fi
touch "$stamp"
