//! Binds the header and links the library as TE_LINK says: dylib or static.

use std::path::PathBuf;

fn main() {
    let setting = |name: &str| {
        println!("cargo:rerun-if-env-changed={name}");
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
    };
    let (folder, include, kind) = (setting("TE_LIB_DIR"), setting("TE_INCLUDE_DIR"), setting("TE_LINK"));
    println!("cargo:rustc-link-search=native={folder}");
    println!("cargo:rerun-if-changed={folder}");
    match kind.as_str() {
        "dylib" => println!("cargo:rustc-link-lib=dylib=transfer_engine"),
        "static" => {
            println!("cargo:rustc-link-lib=static=transfer_engine");
            for system in ["gcc_s", "util", "rt", "pthread", "m", "dl"] {
                println!("cargo:rustc-link-lib=dylib={system}");
            }
        }
        _ => panic!("TE_LINK is {kind}"),
    }
    let bindings = bindgen::Builder::default().header(format!("{include}/transfer_engine_ext.h")).generate();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap()).join("bindings.rs");
    bindings.expect("bindings").write_to_file(out).unwrap();
}
