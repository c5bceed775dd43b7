#!/usr/bin/env bash
# Does what a stage of a Dockerfile does in a folder with a Debian system, so that it can be tried where no Docker runs.
#
#   dockerfile-stages.sh DOCKERFILE STAGE ROOT [STAGE=ROOT...]
#
#   ROOT            the system; / is this one, for use inside a room. It is changed
#   STAGE=ROOT      where another stage was done, for COPY --from=STAGE
#
# Understands RUN, COPY of files and folders (those of HEAD), WORKDIR and ENV; the rest concerns only what is run later. Needs
# root, but for ROOT /. Exit status: that of the first command that fails.
set -euo pipefail
file=$(realpath "$1") stage=$2 root=$(realpath "$3")
shift 3
declare -A roots
for pair in "$@"; do roots[${pair%%=*}]=$(realpath "${pair#*=}"); done
cd "$(dirname "$0")/.."
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git -c safe.directory='*' archive HEAD | tar -x -C "$context"
# As .dockerignore has it: what is not in the image's sources must not be missed.
while read -r pattern; do
    case $pattern in
    '' | '#'* | '**'*) ;;
    '!'*) (cd "$context" && git -c safe.directory='*' --git-dir="$OLDPWD/.git" archive HEAD "${pattern#!}" | tar -x) ;;
    *) (cd "$context" && eval "rm -rf -- $pattern") ;;
    esac
done <.dockerignore

inside() { # FOLDER COMMAND
    local enter=(env)
    [ "$root" = / ] || enter=(chroot "$root" env)
    mkdir -p "${root%/}$1"
    "${enter[@]}" "${settings[@]}" /bin/sh -c "cd '$1' && $2"
}
settings=(_=) folder=/ found=
while IFS= read -r line; do
    read -r word rest <<<"$line"
    if [ "$word" = FROM ]; then
        [[ $rest == *" AS $stage" ]] && found=1 active=1 || active=
        continue
    fi
    [ -n "${active:-}" ] || continue
    case $word in
    RUN) echo "+ $rest" >&2 && inside "$folder" "$rest" ;;
    WORKDIR) folder=$rest ;;
    ENV) settings+=("$rest") ;;
    COPY)
        base=$context
        if [[ $rest == --from=* ]]; then
            from=${rest#--from=} rest=${rest#* }
            base=${roots[${from%% *}]:?"say where the stage ${from%% *} was done"}
        fi
        read -r source target <<<"$rest"
        [[ $target == /* ]] || target=$folder/$target
        echo "+ COPY $rest" >&2
        if [ -d "$base/$source" ]; then mkdir -p "${root%/}$target" && cp -a "$base/$source/." "${root%/}$target/"; else install -D -m 755 "$base/$source" "${root%/}$target"; fi
        ;;
    esac
done < <(grep -v '^[[:space:]]*#' "$file" | sed -e ':a' -e '/\\$/{N;s/\\\n[[:space:]]*/ /;ba}')
[ -n "$found" ] || { echo "dockerfile-stages: $file has no stage $stage" >&2; exit 2; }
