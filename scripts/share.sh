#!/usr/bin/env bash
# Writes what people find of mte through their shell and `man`, as it lies below PREFIX/share once it is installed.
#
#   share.sh MTE FOLDER     the program, and the folder, which is emptied first
#   share.sh list           the files, for scripts/install.sh: uninstalling must know them where nothing is built any more
set -euo pipefail

# tests/mte_top.rs compares the list with what the program writes.
commands="bench bench-run bench-target completions doctor explain links manpages metadata-server ping segments top topology"
list() {
    echo man/man1/mte.1
    for command in $commands; do echo "man/man1/mte-$command.1"; done
    printf '%s\n' bash-completion/completions/mte zsh/site-functions/_mte fish/vendor_completions.d/mte.fish
}

if [ "${1:-}" = list ]; then
    list
    exit
fi
mte=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder"/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
"$mte" manpages "$folder/man/man1"
"$mte" completions bash >"$folder/bash-completion/completions/mte"
"$mte" completions zsh >"$folder/zsh/site-functions/_mte"
"$mte" completions fish >"$folder/fish/vendor_completions.d/mte.fish"
