//! Certificates for tests, made by openssl. Also a part of the library's own tests.

use std::path::Path;
use std::process::Command;

/// Two authorities, `good` and `bad`. Of the first: `server`, `client`, `one` and `two`, which name this host; `elsewhere`, which names
/// another one; `expired`. Of the second: `foreign`. Each a `.pem` and a `.key`.
const SCRIPT: &str = "set -e
    new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    for ca in good bad; do
        openssl req -x509 $new -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.pem
    done
    printf 'subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost' >here
    printf 'subjectAltName=DNS:elsewhere.example' >there
    make() {
        openssl req $new -subj /CN=$1 -keyout $1.key -out $1.csr
        openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial -days 2 -extfile $3 -out $1.pem
    }
    for name in server client one two; do make $name good here; done
    make elsewhere good there
    make foreign bad here
    openssl req $new -subj /CN=expired -keyout expired.key -out expired.csr
    printf '[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=.\ndatabase=index\nserial=number\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' >ca
    : >index
    echo 01 >number
    openssl ca -batch -config ca -extfile here -cert good.pem -keyfile good.key -in expired.csr -out expired.pem \
        -startdate 20200101000000Z -enddate 20200102000000Z";

/// Makes them in `folder`.
pub fn make(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let made = Command::new("sh").args(["-c", SCRIPT]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}
