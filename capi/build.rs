//! Sets the SONAME, and keeps the library mapped after dlclose: it has threads.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtransfer_engine.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-env-changed=TE_GLIBC");
    let Ok(folder) = std::env::var("TE_GLIBC") else { return };
    // What is shipped is linked to the stand-ins for an older C library that `scripts/glibc.sh` makes; see ../build.rs.
    println!("cargo:rerun-if-changed={folder}");
    println!("cargo:rustc-link-search=native={folder}");
    println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
}
