//! Builds of the program of `tests/cpp`, which tries the C++ classes.

use std::path::PathBuf;

use super::{library_folder, make, top};

/// A way to build the program.
pub struct Build {
    /// Folder for what is built.
    pub name: &'static str,
    compiler: &'static str,
    standard: u8,
    how: &'static str,
}

/// As most programs are built.
pub const GCC: Build = Build { name: "cpp-gcc", compiler: "g++", standard: 17, how: "-O1" };
/// The other compiler, and the other standard.
pub const CLANG: Build = Build { name: "cpp-clang", compiler: "clang++", standard: 20, how: "-O0" };
/// With sanitizers.
pub const SANITIZED: Build = Build {
    name: "cpp-sanitized",
    compiler: "g++",
    standard: 20,
    how: "-O0 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all",
};

impl Build {
    /// Builds it, if it is not yet.
    pub fn program(&self) -> PathBuf {
        let variables = [
            format!("TE_INCLUDE={}", top().join("include").display()),
            format!("TE_LIB_DIR={}", library_folder().display()),
            format!("CXX={}", self.compiler),
            format!("STD={}", self.standard),
            format!("HOW={}", self.how),
        ];
        make("tests/cpp", self.name, &variables).join("tests")
    }
}
