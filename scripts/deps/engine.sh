# Sourced by deps.sh: tries needs, installs the packages of those that fail, tries again.

# need NAME PACKAGES AFTER REASON: the function try_NAME succeeds where the machine has it, and else prints why not.
# AFTER lists the needs without which it cannot be tried, or is "-". PACKAGES may be a function's name, asked when apt's
# lists are fresh. A function fix_NAME, where there is one, gets what no package has.
needs=()
declare -A packages_of after_of reason_of failed
need() {
    needs+=("$1")
    packages_of[$1]=$2 after_of[$1]=$3 reason_of[$1]=$4
}

say() { echo "deps: $*" >&2; }
exists() { declare -F "$1" >/dev/null; }
packages() { if exists "${packages_of[$1]}"; then "${packages_of[$1]}"; else echo "${packages_of[$1]}"; fi; }

# Prints the first need that failed of those NAME comes after.
obstacle() {
    local after
    for after in ${after_of[$1]}; do [ -z "${failed[$after]:-}" ] || { echo "$after"; return; }; done
}

# Fills `failed` with the errors of the needs that do not work.
try_all() {
    local name obstacle
    failed=()
    for name in "${needs[@]}"; do
        obstacle=$(obstacle "$name")
        if [ -n "$obstacle" ]; then
            failed[$name]="it cannot be tried without $obstacle"
        elif ! (try_"$name") >"$work/said" 2>&1; then
            failed[$name]=$(sed -n 's/^scripts[^ ]*: line [0-9]*: //; /[^[:space:]]/p' "$work/said" | head -n 2 | paste -sd ';')
            : "${failed[$name]:=it fails without a word}"
        fi
    done
}

in_order() { local name; for name in "${needs[@]}"; do [ -z "${failed[$name]:-}" ] || echo "$name"; done; }

may_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }
}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 "$@" >"$work/apt" 2>&1 || { tail -n 15 "$work/apt" >&2; return 1; }; }

# The packages of all that failed, each once; none for what a function of its own fixes.
missing_packages() { for name in $(in_order); do packages "$name"; done | tr ' ' '\n' | awk 'NF && !seen[$0]++' | paste -sd ' '; }

report() {
    local name list
    for name in $(in_order); do
        list=$(packages "$name")
        say "$name does not work: ${failed[$name]}"
        say "    needed for ${reason_of[$name]}${list:+; Debian packages: $list}"
    done
}

give_up() {
    say "$*"
    exit 1
}

install_missing() {
    local list
    apt update || say "apt-get update failed; trying the lists that are there"
    report
    list=$(missing_packages)
    [ -n "$list" ] || return 0
    say "installing with apt: $list"
    # shellcheck disable=SC2086
    apt install -y --no-install-recommends $list || give_up "apt-get could not install $list; its last words are above"
}

fix_the_rest() {
    local name
    for name in $(in_order); do
        exists "fix_$name" && [ -z "$(obstacle "$name")" ] || continue
        fix_"$name" || say "$name: the attempt to get it failed"
    done
}

satisfy() {
    local name list
    try_all
    [ ${#failed[@]} -gt 0 ] || return 0
    if may_install; then
        install_missing
        try_all
    else
        report
    fi
    fix_the_rest
    try_all
    [ ${#failed[@]} -gt 0 ] || return 0
    list=$(missing_packages)
    if [ -n "$list" ] && ! may_install; then
        say "as root (this user is not, and has no sudo), run"
        say "    apt-get update && apt-get install -y --no-install-recommends $list"
        give_up "and repeat; systems without apt have packages of similar names"
    fi
    for name in $(in_order); do say "$name still does not work: ${failed[$name]}"; done
    give_up "remedy: repair what these errors name${list:+ (the packages $list are installed)}, and repeat"
}
