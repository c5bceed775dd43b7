# What the emulated NICs do to programs without our library. Not part of `make test`:
#   bash tests/rxe/guest.sh -n 4 -t 900 -o /tmp/out -- env BIN=$PWD/target/rxe/bin bash tests/rxe/suite.sh plain
# The READs are lost where the host has other things to do, so run something beside it.
NICS=4 LIMIT=900

case_reads() {
    (while :; do :; done) &
    "$BIN/plain_reads" 6 || fail "READs that ended with success have not their bytes"
}
