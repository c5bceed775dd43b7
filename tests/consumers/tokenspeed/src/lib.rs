//! Empty: what is tested is the dependency.
